import { describe, expect, it } from 'vitest';
import type { Cluster, Member, SourceClaim } from '../api/types';
import { claimTone, eventWord, memberTone, otherReasons, worstFirst } from './health';
import { tiers } from './topology';

const NOW = Date.UTC(2026, 0, 1);
const member = (over: Partial<Member>): Member => ({
  name: 'pg1', role: 'replica', state: 'streaming', writable: false, timeline: 1, lag_bytes: 0, lag_seconds: 0, receive_lag_bytes: 0, lsn: null,
  seen_at: new Date(NOW - 500).toISOString(), host: null, port: null, rest_url: null, postgres_version: null, patroni_version: null, postmaster_start_time: null,
  upstream: null, replication_state: null, pending_restart: null, tags: {}, connections: null, present: true, sources: [], ...over,
});

describe('how a member stands', () => {
  it.each<[string, Partial<Member>, string]>([
    ['streaming now', {}, 'ok'], ['seen long ago', { seen_at: new Date(NOW - 60_000).toISOString() }, 'stale'], ['never seen', { seen_at: null }, 'unknown'],
    ['gone from the DCS', { present: false }, 'unknown'], ['gone from the DCS and writable', { present: false, writable: true }, 'critical'], ['state unknown', { state: 'unknown' }, 'unknown'], ['start failed', { state: 'start failed' }, 'critical'],
    ['crashed', { state: 'crashed' }, 'critical'], ['starting', { state: 'starting' }, 'warning'],
  ])('%s', (_name, over, tone) => {
    expect(memberTone(member(over), NOW).tone).toBe(tone);
  });
});

it('lists critical before warning before unknown before healthy', () => {
  const c = (name: string, health: Cluster['health']) => ({ name, health }) as Cluster;
  expect([c('b', 'ok'), c('a', 'ok'), c('u', 'unknown'), c('w', 'warning'), c('x', 'critical')].sort(worstFirst).map((x) => x.name)).toEqual(['x', 'w', 'u', 'a', 'b']);
});

describe('tiers of replication', () => {
  const names = (members: Member[]) => tiers({ members }).map((row) => row.map((m) => m.name));
  it('puts cascades below their upstream', () => {
    expect(names([member({ name: 'c', upstream: 'b' }), member({ name: 'a', role: 'primary' }), member({ name: 'b', upstream: 'a' })])).toEqual([['a'], ['b'], ['c']]);
  });
  it('keeps a replica without a link below the primary, and two primaries side by side', () => {
    expect(names([member({ name: 'a', role: 'primary' }), member({ name: 'b', role: 'primary', upstream: 'a' }), member({ name: 'c' })])).toEqual([['a', 'b'], ['c']]);
  });
  it('survives upstreams that form a loop', () => {
    expect(names([member({ name: 'a', upstream: 'b' }), member({ name: 'b', upstream: 'a' })]).flat().sort()).toEqual(['a', 'b']);
  });
});

describe('how a source stands', () => {
  it.each<[string, Partial<SourceClaim>, string]>([
    ['answers', {}, 'ok'], ['fails', { up: false }, 'critical'], ['only its key is known', { up: null }, 'ok'],
    ['answered long ago', { seen_at: new Date(NOW - 60_000).toISOString() }, 'stale'], ['never answered', { up: null, seen_at: null }, 'unknown'],
  ])('%s', (_name, over, tone) => {
    expect(claimTone({ source: 'sql', seen_at: new Date(NOW - 500).toISOString(), up: true, error: null, says: 'x', ...over }, NOW)).toBe(tone);
  });
});

it('says a split brain once', () => {
  const reasons: Cluster['reasons'] = [{ severity: 'critical', text: 'split brain: a and b take writes at the same time' }, { severity: 'warning', text: 'Patroni of a does not answer' }];
  expect(otherReasons({ split_brain: null, reasons })).toHaveLength(2);
  expect(otherReasons({ split_brain: { state: 'confirmed', grade: null, members: ['a', 'b'], since: '' }, reasons }).map((r) => r.text)).toEqual(['Patroni of a does not answer']);
});

it.each([['leader_changed', 'leader changed'], ['dcs_blind', 'DCS blind'], ['rest_down', 'Patroni REST down'], ['hb_replica', 'heartbeat replica']])('%s is told as %s', (event, words) => {
  expect(eventWord({ event })).toBe(words);
});
