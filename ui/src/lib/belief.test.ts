import { describe, expect, it } from 'vitest';
import type { Demotion, Member, Reach, Readiness } from '../api/types';
import { chainMarks, demotionText, pathsTo, pendingRequests, skewText, succession, unreachableText } from './belief';

const NOW = Date.UTC(2026, 0, 1);

it.each<[number | null, number | null, string | null]>([
  [null, null, null], [0.4, 0.1, null], [-1, 0.1, null], [3.2, 0.04, 'clock 3.2 s ahead ± 40 ms'], [-90, null, 'clock 1m 30s behind'],
])('a clock off by %s ± %s', (skew, error, text) => {
  expect(skewText({ clock_skew_seconds: skew, clock_skew_error_seconds: error })).toBe(text);
});

describe('the countdown of a leader that the DCS does not confirm', () => {
  const d = (due: number, certain: boolean, basis: Demotion['basis'] = 'quorum_lost'): Demotion => ({ member: 'pg1', basis, due_at: new Date(NOW + due * 1000).toISOString(), lease_ends_at: null, certain });
  it.each<[Demotion, boolean | null, string, string]>([
    [d(12, true), true, 'pg1 must demote itself within 12 s', 'warning'],
    [d(12, false, 'dcs_blind'), true, 'pg1 is expected to demote itself within 12 s: Daraji cannot read the DCS', 'warning'],
    [d(-5, true), true, 'pg1 had to demote itself 5 s ago and still takes writes', 'critical'],
    [d(-5, false), true, 'pg1 was expected to demote itself 5 s ago and still takes writes', 'warning'],
    [d(-5, true), false, 'pg1 has given up, as it had to', 'info'],
    [d(-5, true), null, 'pg1 had to demote itself 5 s ago; whether it did is unknown', 'unknown'],
    [d(0, true), null, 'pg1 had to demote itself 1 s ago', 'unknown'],
  ])('%o, writable %s', (demotion, writable, text, tone) => {
    const found = demotionText(demotion, writable, NOW);
    expect(found.text).toContain(text);
    expect(found.tone).toBe(tone);
  });
});

describe('who can reach whom', () => {
  const r = (from: string, port: Reach['port'], reachable: boolean, failure: string | null = null): Reach => ({ from, target: 'pg1', port, reachable, failure, seen_at: '' });
  it('tells each port by itself', () => {
    expect(pathsTo([r('pg2', 'postgres', true), r('pg3', 'postgres', false, 'timeout'), { ...r('pg3', 'rest', true), target: 'pg2' }], 'pg1')).toEqual([{ port: 'PostgreSQL', from: ['pg2'], notFrom: ['pg3 (timeout)'] }]);
    expect(pathsTo(undefined, 'pg1')).toEqual([]);
  });
  it.each<[Reach[], string | null]>([
    [[], null], [[r('pg2', 'postgres', true)], null],
    [[r('pg2', 'postgres', false, 'refused'), r('pg2', 'rest', false, 'refused')], 'cannot be reached from: pg2 (refused)'],
    [[r('pg2', 'postgres', true), r('pg2', 'rest', false, 'timeout')], 'cannot be reached from: pg2 (timeout) on Patroni REST'],
    [[r('pg2', 'postgres', false), r('pg3', 'rest', false, 'timeout')], 'cannot be reached from: pg2 on PostgreSQL; pg3 (timeout) on Patroni REST'],
  ])('%o', (list, text) => {
    expect(unreachableText(list, 'pg1')).toBe(text);
  });
});

it('marks cascades and delays', () => {
  const m = (over: Partial<Member>) => ({ name: 'x', role: 'replica', upstream: null, apply_delay_seconds: null, ...over }) as Member;
  const members = [m({ name: 'a', role: 'primary' }), m({ name: 'b', upstream: 'a' }), m({ name: 'c', upstream: 'b', apply_delay_seconds: 3600 }), m({ name: 'd', upstream: 'gone' })];
  expect(members.map((x) => chainMarks(x, { members }))).toEqual([[], [], ['cascades from b', 'delayed by 1h'], []]);
});

describe('who would take over', () => {
  const readiness = (over: Partial<Readiness>): Readiness => ({ candidate: 'pg2', lag_bytes: 0, blockers: [], candidates: [], ...over });
  it.each<[Readiness | null, string | null, string, string]>([
    [null, null, '', ''],
    [readiness({}), 'pg2 would take over', 'nothing would be lost as of now', 'ok'],
    [readiness({ lag_bytes: 2048 }), 'pg2 would take over', '2 KiB of WAL would be lost', 'ok'],
    [readiness({ lag_bytes: null }), 'pg2 would take over', 'how much would be lost is unknown', 'warning'],
    [readiness({ candidates: [{ member: 'pg2', lag_bytes: 0, blockers: [], risks: ['it is slow'] }] }), 'pg2 would take over', 'nothing would be lost as of now', 'warning'],
    [readiness({ candidate: null, lag_bytes: null, blockers: ['Patroni is paused'] }), 'Nobody could take over', '', 'warning'],
  ])('%o', (r, text, loss, tone) => {
    const found = succession({ readiness: r, dcs: null, paused: false });
    expect(found && [found.text, found.loss, found.tone]).toEqual(text === null ? null : [text, loss, tone]);
  });
  it('knows nobody from nobody known', () => {
    const r = readiness({ candidate: null, blockers: ['no member may take over'] });
    expect(succession({ readiness: r, dcs: { stale: true } as never, paused: false })).toEqual({ text: 'Who would take over is unknown', tone: 'unknown', loss: '' });
    expect(succession({ readiness: r, dcs: null, paused: true })?.text).toBe('Nobody would take over');
  });
});

it('tells only requests that are still to be done', () => {
  const r = { kind: 'switchover', leader: 'pg1', candidate: 'pg2', scheduled_at: null, set_at: '', outcome: 'pending', ended_at: null } as const;
  expect(pendingRequests([{ ...r, outcome: 'completed' }, r, { ...r, kind: 'manual_failover', leader: null }, { ...r, candidate: null, scheduled_at: '2026-01-01T03:00:00Z' }])).toEqual([
    { text: 'switchover from pg1 to pg2 was asked for', at: null }, { text: 'manual failover to pg2 was asked for', at: null },
    { text: 'switchover from pg1 was asked for, scheduled for', at: '2026-01-01T03:00:00Z' },
  ]);
  expect(pendingRequests(undefined)).toEqual([]);
});
