import { describe, expect, it } from 'vitest';
import { age, bytes, count, innermost, labelText, plural, span, value } from './format';
import { fuzzy } from './fuzzy';

describe('numbers with units', () => {
  it.each([[0, '0 B'], [512, '512 B'], [1536, '1.5 KiB'], [355 * 1024, '355 KiB'], [1.2 * 1024 ** 3, '1.2 GiB'], [-2048, '-2 KiB'], [null, 'unknown'], [NaN, 'unknown']])('bytes %s', (n, text) => {
    expect(bytes(n)).toBe(text);
  });
  it.each([[0, '0'], [12, '12'], [1234, '1.23 k'], [5_000_000, '5 M'], [0.004, '0.004'], [null, 'unknown']])('count %s', (n, text) => {
    expect(count(n)).toBe(text);
  });
  it.each([[0, '0 s'], [0.0004, '400 µs'], [0.35, '350 ms'], [4.23, '4.2 s'], [59, '59 s'], [200, '3m 20s'], [7500, '2h 5m'], [86_400 * 4 + 3 * 3600, '4d 3h'], [3600, '1h'], [null, 'unknown']])('span %s', (n, text) => {
    expect(span(n)).toBe(text);
  });
  it.each([[null, 'never'], [400, 'now'], [14_900, '14 s'], [125_000, '2m 5s']])('age %s', (ms, text) => {
    expect(age(ms)).toBe(text);
  });
  it('never shows unknown as zero', () => {
    for (const unit of ['bytes', 'bytes/s', 'seconds', 'percent', 'count', 'per second', 'none'] as const) expect(value(null, unit)).toBe('unknown');
    expect(value(0.986, 'percent')).toBe('98.6 %');
    expect(value(2048, 'bytes/s')).toBe('2 KiB/s');
  });
  it('writes labels and plurals', () => {
    expect(labelText({ __name__: 'up', job: 'x' })).toBe('{job="x"}');
    expect(plural(1, 'line')).toBe('1 line');
    expect(plural(2, 'series', 'series')).toBe('2 series');
  });
});

describe('fuzzy search', () => {
  it('ranks starts over middles over scattered letters', () => {
    expect(fuzzy('ord', 'orders-prod')).toBeGreaterThan(fuzzy('ord', 'a recorder'));
    expect(fuzzy('prod', 'orders-prod')).toBeGreaterThan(fuzzy('prod', 'reproduce'));
    expect(fuzzy('xyz', 'orders')).toBe(0);
  });
});

it.each([
  ['request to http://h:2379/health failed: client error (Connect): tcp connect error: Connection refused (os error 111)', 'Connection refused'],
  ['RAFT NO LEADER', 'RAFT NO LEADER'], ['', ''],
])('the innermost reason of %s', (error, reason) => {
  expect(innermost(error)).toBe(reason);
});
