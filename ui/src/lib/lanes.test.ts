import { describe, expect, it } from 'vitest';
import type { Event, PromSeries } from '../api/types';
import { dualPrimary, lockSpans, roleLanes, splitBrains, writableSpans } from './lanes';

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

it('knows when a member took writes, and leaves gaps', () => {
  const spans = writableSpans([{ metric: { member: 'a' }, values: [[0, '1'], [10, '1'], [20, '0'], [60, '1']] }, { metric: { member: 'b' }, values: [[0, '0']] }], 10_000, w);
  expect([...spans]).toEqual([['a', [{ from: 0, to: 20_000 }, { from: 60_000, to: 70_000 }]]]);
});

describe('who held the leader key', () => {
  const e = (event: string, second: number, fields: Record<string, string> = {}, member: string | null = null): Event =>
    ({ id: `${event}${second}`, time: new Date(second * 1000).toISOString(), cluster: 'c', member, event, severity: 'info', source: 'dcs', text: '', fields });
  const spans = (events: Event[], owner: string | null = null) => Object.fromEntries([...lockSpans(events, w, owner)].map(([m, list]) => [m, list.map((s) => [s.from / 1000, s.to / 1000])]));
  it.each<[string, Event[], string | null, Record<string, number[][]>]>([
    ['nothing happened, and the owner is known', [], 'a', { a: [[0, 100]] }],
    ['nothing is known', [], null, {}],
    ['lost and taken', [e('leader_lost', 20, { old_leader: 'a' }, 'a'), e('leader_changed', 50, { old_leader: 'a', new_leader: 'b' }, 'b')], 'b', { a: [[0, 20]], b: [[50, 100]] }],
    ['lost, and nobody since', [e('leader_lost', 20, { old_leader: 'a' }, 'a')], null, { a: [[0, 20]] }],
    ['the loss was not seen, its length is told', [e('leader_changed', 50, { old_leader: 'a', new_leader: 'b', gap_seconds: '30' }, 'b')], null, { a: [[0, 20]], b: [[50, 100]] }],
    ['taken again by the same', [e('leader_lost', 20, {}, 'a'), e('leader_returned', 30, {}, 'a')], null, { a: [[0, 20], [30, 100]] }],
    ['the DCS cannot be read', [e('leader_changed', 10, { new_leader: 'b' }, 'b'), e('dcs_quorum_lost', 40), e('dcs_quorum_restored', 70)], 'b', { b: [[10, 40], [70, 100]] }],
    ['the DCS cannot be read, and the owner is not known', [e('dcs_blind', 40)], 'a', {}],
    ['other events do not count', [e('lag_high', 40)], 'a', { a: [[0, 100]] }],
  ])('%s', (_name, events, owner, expected) => {
    expect(spans(events, owner)).toEqual(expected);
  });
});
