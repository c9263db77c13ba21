import { describe, expect, it } from 'vitest';
import type { Event, PromSeries } from '../api/types';
import { dualPrimary, roleLanes, splitBrains } from './lanes';

const series = (member: string, role: string, ...at: number[]): PromSeries => ({ metric: { member, role }, values: at.map((t) => [t, '1']) });
const w = { from: 0, to: 100_000 };

describe('role lanes', () => {
  it('joins samples, cuts at gaps and at role changes', () => {
    const lanes = roleLanes([series('pg1', 'primary', 0, 10, 20), series('pg1', 'replica', 60, 70), series('pg2', 'replica', 0, 10, 20, 30)], 10_000, w);
    expect(lanes).toEqual([
      { member: 'pg1', segments: [{ from: 0, to: 30_000, role: 'primary' }, { from: 60_000, to: 80_000, role: 'replica' }] },
      { member: 'pg2', segments: [{ from: 0, to: 40_000, role: 'replica' }] },
    ]);
  });
  it('prefers the primary where two roles claim one instant, whatever their order', () => {
    for (const list of [[series('m', 'replica', 10), series('m', 'primary', 10)], [series('m', 'primary', 10), series('m', 'replica', 10)]]) {
      expect(roleLanes(list, 10_000, w)[0]!.segments).toEqual([{ from: 10_000, to: 20_000, role: 'primary' }]);
    }
  });
  it('ignores samples that say no and never leaves the window', () => {
    const no: PromSeries = { metric: { member: 'm', role: 'primary' }, values: [[10, '0']] };
    expect(roleLanes([no], 10_000, w)[0]!.segments).toEqual([]);
    expect(roleLanes([series('m', 'primary', 95)], 10_000, w)[0]!.segments).toEqual([{ from: 95_000, to: 100_000, role: 'primary' }]);
  });
});

describe('two primaries', () => {
  it('finds the overlap and names both', () => {
    const lanes = roleLanes([series('pg1', 'primary', 0, 10, 20, 30), series('pg2', 'primary', 20, 30, 40)], 10_000, w);
    expect(dualPrimary(lanes)).toEqual([{ from: 20_000, to: 40_000, members: ['pg1', 'pg2'] }]);
  });
  it('does not call a handover an overlap', () => {
    const lanes = roleLanes([series('pg1', 'primary', 0, 10), series('pg2', 'primary', 20, 30)], 10_000, w);
    expect(dualPrimary(lanes)).toEqual([]);
  });
});

describe('split brains as told', () => {
  const e = (s: number, event: string, members?: string) => ({ time: new Date(s * 1000).toISOString(), event, fields: members ? { members } : {} }) as unknown as Event;
  it('pairs beginning and end, and leaves the last one open', () => {
    const newestFirst = [e(90, 'split_brain_confirmed', 'c,d'), e(40, 'split_brain_ended'), e(20, 'leader_changed'), e(10, 'split_brain_confirmed', 'a,b')];
    expect(splitBrains(newestFirst)).toEqual([{ from: 10_000, to: 40_000, members: ['a', 'b'] }, { from: 90_000, to: null, members: ['c', 'd'] }]);
  });
  it('ignores an end without a beginning', () => {
    expect(splitBrains([e(5, 'split_brain_ended')])).toEqual([]);
  });
});
