import { describe, expect, it } from 'vitest';
import type { Cause, Cluster, Event, Evidence, Incident, LogLine, PhaseName } from '../api/types';
import { absence, byUrgency, bySign, causeLine, costs, isFailover, lasted, patternPieces, proofOf, rounds, since, startOf, steps, story, stretches, unseen, windowOf } from './incident';

const T = Date.UTC(2026, 0, 1, 12);
const at = (seconds: number) => new Date(T + seconds * 1000).toISOString();
const incident = (over: Partial<Incident> = {}): Incident => ({
  id: 'demo-1', cluster: 'demo', title: 't', severity: 'critical', state: 'open', opened_at: at(0), settled_at: null, causes: [], phases: [], events: [], impact: {}, ...over,
});
const event = (name: string, seconds: number, fields: Record<string, unknown> = {}, member: string | null = 'pg1'): Event => ({
  id: `${name}@${seconds}`, time: at(seconds), cluster: 'demo', member, event: name, severity: 'warning', source: 'judge', text: `${name} told`, fields,
});
const phases = (...list: [PhaseName, number][]) => list.map(([name, s]) => ({ name, at: at(s) }));

describe('the time of an incident', () => {
  it('begins with the first sign, and goes on while it is open', () => {
    const i = incident({ phases: phases(['trigger', -20], ['detected', 0]) });
    expect(startOf(i)).toBe(T - 20_000);
    expect(windowOf(i, T + 60_000)).toEqual({ from: T - 80_000, to: null });
    expect(windowOf({ ...i, state: 'settled', settled_at: at(100) }, T + 999_000_000).to).toBe(T + 160_000);
    expect(startOf(incident())).toBe(T);
  });
  it('is shown as far as something happened when nothing has for long', () => {
    const i = incident({ phases: phases(['trigger', 0], ['detected', 1]), events: [event('a', 60)] });
    expect(windowOf(i, T + 20 * 60_000).to).toBe(null);
    expect(windowOf(i, T + 2 * 86_400_000).to).toBe(T + 60_000 + 600_000);
    // A long one stays whole for longer.
    const long = { ...i, events: [event('a', 0), event('b', 4 * 3600)] };
    expect(windowOf(long, T + 10 * 3_600_000).to).toBe(null);
  });
  it('lasts until it settled, or until now', () => {
    expect(lasted(incident(), T + 5000)).toBe(5);
    expect(lasted(incident({ settled_at: at(90) }), T + 500_000)).toBe(90);
  });
  it.each([[T + 21_400, 'T+21 s'], [T, 'T+0 s'], [T - 900, 'T−900 ms']])('%s is told from time zero', (ms, text) => {
    expect(since(ms, T)).toBe(text);
  });
});

describe('phases', () => {
  const last = (i: Incident) => rounds(i).at(-1)!;
  const shown = (i: Incident) => steps(last(i)).map((s) => `${s.name} ${s.state}`);
  it('expects no failover where nothing happened to the leader', () => {
    expect(shown(incident({ phases: phases(['trigger', 0], ['detected', 3]) }))).toEqual(['trigger known', 'detected known']);
    expect(isFailover(last(incident()))).toBe(false);
    expect(isFailover(last(incident({ events: [event('leader_lost', 1)] })))).toBe(true);
  });
  it('names what may still come, and what passed unseen', () => {
    const open = incident({ phases: phases(['trigger', 0], ['detected', 1], ['lock_taken', 4]) });
    expect(shown(open)).toEqual(['trigger known', 'detected known', 'key_lost unseen', 'lock_taken known', 'promoted pending', 'first_write pending', 'last_replica_streaming pending']);
    expect(shown({ ...open, state: 'settled' }).slice(4)).toEqual(['promoted unseen', 'first_write unseen', 'last_replica_streaming unseen']);
  });
  it.each<[PhaseName, string]>([['released', 'released known'], ['lease_expired', 'lease_expired known']])('knows that the key was %s', (name, text) => {
    expect(shown(incident({ phases: phases(['trigger', 0], ['detected', 1], [name, 1]) }))).toContain(text);
  });
  it('orders what is known by its time and measures from one to the next', () => {
    const list = steps(last(incident({ phases: phases(['trigger', 0], ['lease_expired', 2], ['detected', 3], ['lock_taken', 5], ['first_write', 9]) })));
    expect(list.map((s) => [s.name, s.gap])).toEqual([['trigger', null], ['lease_expired', 2], ['detected', 1], ['lock_taken', 2], ['promoted', null], ['first_write', 4], ['last_replica_streaming', null]]);
    expect(stretches(list).map((p) => [p.from.name, p.to.name, p.seconds, p.unseen.length])).toEqual([
      ['trigger', 'lease_expired', 2, 0], ['lease_expired', 'detected', 1, 0], ['detected', 'lock_taken', 2, 0], ['lock_taken', 'first_write', 4, 1],
    ]);
  });
});

describe('an incident that came back', () => {
  const twice = incident({
    phases: phases(['trigger', 0], ['detected', 1], ['lease_expired', 1], ['trigger', 300], ['detected', 302]),
    events: [event('leader_lost', 1), event('incident_reopened', 302), event('lag_high', 300)],
  });
  it('has a round for each time, with its own steps and events', () => {
    expect(rounds(twice).map((r) => [r.phases.length, r.events.map((e) => e.event), r.over])).toEqual([[3, ['leader_lost'], true], [2, ['incident_reopened', 'lag_high'], false]]);
    expect(rounds(twice).map((r) => steps(r).map((s) => s.state))).toEqual([['known', 'known', 'known', 'unseen', 'unseen', 'unseen', 'unseen'], ['known', 'known']]);
    expect(startOf(twice)).toBe(T);
  });
  it('has one round, also when nothing is known of it', () => {
    expect(rounds(incident({ events: [event('a', -5)] }))).toEqual([{ phases: [], events: [event('a', -5)], over: false }]);
    expect(rounds({ ...incident(), phases: undefined, events: undefined })).toEqual([{ phases: [], events: [], over: false }]);
  });
});

describe('impact', () => {
  const cluster = (writable: (boolean | null)[], split: Cluster['split_brain'] = null) => ({
    writable: writable.flatMap((w, n) => (w ? [`pg${n + 1}`] : [])), members: writable.map((w, n) => ({ name: `pg${n + 1}`, writable: w })), split_brain: split,
  }) as unknown as Cluster;
  const cost = (i: Incident, c: Cluster | null = null) => costs(i, c, T + 41_000).map((x) => `${x.value}${x.note ? ` (${x.note})` : ''} ${x.tone}`);
  it('says what was not measured', () => {
    expect(cost(incident())).toEqual(['not measured unknown', 'not measured unknown', 'not measured unknown']);
    expect(cost(incident(), cluster([true, false]))[2]).toBe('none seen ok');
  });
  it('says what was, with its error', () => {
    const impact = { write_outage_seconds: 24.6, write_outage_error_seconds: 0.4, split_brain_seconds: 12, lost_wal: '0/1..0/9', lost_wal_bytes: 8 };
    expect(cost(incident({ state: 'settled', impact }))).toEqual(['25 s (± 400 ms, measured by WAL) critical', 'at least 8 B (0/1 to 0/9) critical', '12 s (two members took writes) critical']);
    expect(cost(incident({ impact: { write_outage_seconds: 3, lost_wal: '0/1..0/9' } })).slice(0, 2)).toEqual(['3 s (as seen by asking every member) critical', 'not measured (possibly 0/1 to 0/9) warning']);
  });
  it('adds what clients felt where a probe felt it', () => {
    expect(cost(incident({ impact: { client_outage_seconds: 26.4, client_outage_error_seconds: 0.5 } }))[1]).toBe('26 s (write probe, perhaps 500 ms less) critical');
  });
  it('calls no loss what is proven to be none', () => {
    expect(cost(incident({ impact: { lost_wal_bytes: 0 } }))[1]).toBe('none (proven by both positions) ok');
  });
  it('knows that writes are still out, and whom nobody can ask', () => {
    expect(cost(incident(), cluster([false, false]))[0]).toBe('still going on (no member takes writes) critical');
    expect(cost(incident(), cluster([false, null]))[0]).toBe('still going on (no member is seen to take writes; pg2 cannot be seen) critical');
    expect(cost(incident(), cluster([null, null]))[0]).toBe('not measured unknown');
    expect(cost(incident({ state: 'settled' }), cluster([false, false]))[0]).toBe('not measured unknown');
    expect(cost(incident(), cluster([true, false]))[0]).toBe('not measured unknown');
  });
  it('expects no writes of a standby cluster', () => {
    expect(cost(incident(), { ...cluster([false, false]), standby_of: 'db:5432' })[0]).toBe('not applicable (a standby cluster takes no writes) unknown');
  });
  it('knows that a split brain goes on, was possible, or has an end that nobody saw', () => {
    const confirmed = event('split_brain_confirmed', 1, { members: 'pg1,pg2' }, null);
    expect(cost(incident({ events: [confirmed] }))[2]).toBe('still going on (pg1 and pg2, for 40 s) critical');
    expect(cost(incident({ events: [confirmed], state: 'settled' }))[2]).toBe('not measured (its end was not seen) unknown');
    expect(cost(incident({ events: [confirmed, event('split_brain_ended', 9)], impact: { split_brain_seconds: 8 } }))[2]).toBe('8 s (two members took writes) critical');
    expect(cost(incident(), cluster([true, null], { state: 'possible', grade: null, members: ['pg1', 'pg2'], since: at(0) }))[2]).toBe('possible (pg1 and pg2: cannot be excluded) warning');
    expect(cost(incident({ events: [event('split_brain_possible', 1)], state: 'settled' }))[2]).toBe('none seen (it was possible, and never confirmed) unknown');
  });
  it('does not call safe what cannot be seen', () => {
    expect(cost(incident(), cluster([true, null]))[2]).toBe('none seen (pg2 cannot be seen) unknown');
    expect(cost(incident({ state: 'settled' }), cluster([true, null]))[2]).toBe('none seen ok');
  });
});

describe('evidence', () => {
  const evidence = (text: string, sign = 's', source = 'patroni', seconds = 0): Evidence => ({ source, time: at(seconds), text, link: null, sign });
  it.each([
    ['pg1: 2026-01-01 12:00:00,100 INFO: Demoting self', 'pg1', 'Demoting self'],
    ["pg1's patroni log wrote nothing from 12:00:00 for 82 s, to the end", '', "pg1's patroni log wrote nothing from 12:00:00 for 82 s, to the end"],
    ['{cluster="demo"} = 0.1', '', '{cluster="demo"} = 0.1'],
    ['never in this time: up == 0', '', 'never in this time: up == 0'],
  ])('%s', (text, member, line) => {
    expect(proofOf(evidence(text))).toEqual({ member, text: line });
  });
  it('stands under what it proves, in its order', () => {
    expect(bySign([evidence('a', 'x'), evidence('b', 'y'), evidence('c', 'x')]).map((g) => [g.sign, g.records.map((r) => r.text)])).toEqual([['x', ['a', 'c']], ['y', ['b']]]);
  });
  it.each([
    ['not found: it demoted itself', { sign: 'it demoted itself', why: '' }],
    ['not observed: the lease ran out (no log of {source="daraji"})', { sign: 'the lease ran out', why: 'no log of {source="daraji"}' }],
    ['not observed: the lease ran out', { sign: 'the lease ran out', why: 'it could not be observed' }],
    ['anything else', { sign: 'anything else', why: '' }],
  ])('absent and unseen are different: %s', (text, expected) => {
    expect(absence(text)).toEqual(expected);
  });
  it('folds unseen streams by their source', () => {
    expect(unseen(['no log of {source="kernel", member="pg2"}', 'no log of {source="kernel", member="pg1"}', 'no log of {source=~"system|kernel", member!="pg1"}', 'no log of {source="daraji"}', 'no samples for up', 'no samples for up', 'no log of {job="x"}'])).toEqual([
      'no log of kernel from pg1, pg2', 'no log of system or kernel from others than pg1', 'no event of Daraji', 'no samples for up', 'no log of {job="x"}',
    ]);
    expect(unseen([])).toEqual([]);
  });
});

describe('the story', () => {
  const line = (seconds: number, member: string, text: string): LogLine => ({ key: `${seconds}${member}`, ns: '', ms: T + seconds * 1000, line: text, labels: { member, source: 'patroni', severity: 'info' } });
  const cause = (evidence: Evidence[]): Cause => ({ name: 'c', title: 'c', confidence: 'high', score: 1, evidence, against: [], missing: [] });
  it('puts lines under the event before them, oldest first', () => {
    const chapters = story(incident(), [event('b', 10), event('a', 0)], [line(-1, 'pg1', 'early'), line(12, 'pg2', 'late'), line(5, 'pg1', 'between'), line(10, 'pg1', 'at once')]);
    expect(chapters.map((c) => [c.event?.event ?? null, c.lines.map((l) => l.text)])).toEqual([[null, ['early']], ['a', ['between']], ['b', ['at once', 'late']]]);
  });
  it('marks what proves the first cause, and adds proofs that are no lines', () => {
    const e = event('leader_lost', 0);
    const i = incident({ causes: [cause([
      { source: 'patroni', time: at(3), text: 'pg1: demoted self', link: null, sign: 'it demoted itself' },
      { source: 'daraji', time: at(0), text: `pg1: ${e.text}`, link: null, sign: 'the lease ran out' },
      { source: 'metrics', time: at(2), text: '{} = 1', link: null, sign: 'the disk was full' },
    ])] });
    const [only] = story(i, [e], [line(3, 'pg2', 'demoted self'), line(3, 'pg1', 'demoted self')]);
    expect(only!.proves).toBe('the lease ran out');
    expect(only!.lines.map((l) => [l.member, l.text, l.proves])).toEqual([['', '{} = 1', 'the disk was full'], ['pg2', 'demoted self', ''], ['pg1', 'demoted self', 'it demoted itself']]);
  });
  it('tells an event once, and nothing where nothing is known', () => {
    expect(story(incident(), [event('a', 0), event('a', 0)], []).length).toBe(1);
    expect(story(incident(), [], [])).toEqual([]);
  });
});

it('lists what nobody has taken first, then the newest', () => {
  const i = (id: string, state: Incident['state'], s: number) => incident({ id, state, opened_at: at(s) });
  expect([i('old', 'open', 0), i('over', 'settled', 50), i('taken', 'acknowledged', 40), i('new', 'open', 9)].sort(byUrgency).map((x) => x.id)).toEqual(['new', 'old', 'taken', 'over']);
});

it.each<[Partial<Incident>, string]>([
  [{ causes: [] }, 'cause not known yet'],
  [{ causes: [], verdict: 'Not enough evidence' }, 'Not enough evidence'],
  [{ causes: [{ title: 'disk full', confidence: 'high' } as Cause] }, 'disk full (high confidence)'],
  [{ causes: [{ title: 'disk full', confidence: 'low' } as Cause] }, 'no cause is proven; perhaps: disk full'],
])('%o in one line', (over, text) => {
  expect(causeLine(incident(over))).toBe(text);
});

it('takes a masked line apart at its variables', () => {
  expect(patternPieces('took <_> ms')).toEqual(['took ', ' ms']);
  expect(patternPieces('<_>: x')).toEqual(['', ': x']);
});
