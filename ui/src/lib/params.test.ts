import { describe, expect, it } from 'vitest';
import { carriedParams, clusterOfPath, clusterPath, patchParams } from './params';

const p = (text: string) => new URLSearchParams(text);

describe('URL state', () => {
  it('sets, repeats and removes, in a stable order', () => {
    expect(patchParams(p('q=a&f=x=1'), { f: ['y=2', 'x=1'], q: null, a: 'b' }).toString()).toBe('a=b&f=y%3D2&f=x%3D1');
    expect(patchParams(p('q=a'), { q: '' }).toString()).toBe('');
    expect(patchParams(p('b=1&a=2'), {}).toString()).toBe('a=2&b=1');
  });
  it.each([
    ['from=now-6h&q=x', '/logs', '/alerts', 'from=now-6h'],
    ['cluster=a&member=m&row=1', '/logs', '/targets', 'cluster=a&member=m'],
    ['from=now-6h', '/c/orders%20prod', '/logs', 'cluster=orders+prod&from=now-6h'],
    ['cluster=a&from=now-6h', '/logs', '/', 'from=now-6h'],
    ['cluster=a&member=m', '/logs', '/c/a', ''],
  ])('carries from %s of %s to %s', (search, from, to, carried) => {
    expect(carriedParams(p(search), from, to).toString()).toBe(carried);
  });
  it('knows cluster paths, odd names included', () => {
    expect(clusterOfPath(clusterPath('a/b c%'))).toBe('a/b c%');
    expect(clusterOfPath('/c/%zz')).toBe('%zz');
    expect(clusterOfPath('/c/a/b')).toBeNull();
    expect(clusterOfPath('/logs')).toBeNull();
  });
});
