import { describe, expect, it } from 'vitest';
import { align, distinguishing, last, stack, stats } from './series';

describe('series', () => {
  it('aligns to one grid and leaves gaps as gaps', () => {
    const a = align([{ metric: { m: 'b' }, values: [[10, '1'], [30, '3']] }, { metric: { m: 'a' }, values: [[20, 'NaN']] }], 10, 30, 10, (l) => l.m!);
    expect(a.x).toEqual([10, 20, 30]);
    expect(a.lines.map((l) => [l.label, l.values])).toEqual([['a', [null, null, null]], ['b', [1, null, 3]]]);
  });
  it('drops samples outside the grid', () => {
    expect(align([{ metric: {}, values: [[0, '1'], [50, '2']] }], 10, 30, 10, () => 'x').lines[0]!.values).toEqual([null, null, null]);
  });
  it('summarises what is there', () => {
    expect(stats([null, 2, 4, null])).toEqual({ last: 4, min: 2, avg: 3, max: 4 });
    expect(stats([null])).toEqual({ last: null, min: null, avg: null, max: null });
    expect(last([1, null])).toBe(1);
  });
  it('stacks, treating a gap as nothing added', () => {
    const line = (values: (number | null)[]) => ({ label: '', labels: {}, values });
    expect(stack([line([1, null]), line([2, 3])])).toEqual([[1, null], [3, 3]]);
  });
  it('names series by what differs', () => {
    const name = distinguishing([{ metric: { c: 'x', m: 'a' }, values: [] }, { metric: { c: 'x', m: 'b' }, values: [] }]);
    expect(name({ c: 'x', m: 'b' })).toBe('b');
    expect(distinguishing([{ metric: { __name__: 'up' }, values: [] }])({ __name__: 'up' })).toBe('up');
  });
});
