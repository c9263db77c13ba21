import { describe, expect, it } from 'vitest';
import type { AmAlert, PromAlert } from '../api/types';
import { byCluster, fromAlertmanager, joinAlerts, matcherText, mutes } from './alerts';

const own = (alertname: string, cluster: string, severity: string, state: 'firing' | 'pending' = 'firing'): PromAlert =>
  ({ labels: { alertname, cluster, severity }, annotations: {}, state, activeAt: '2026-01-01T00:00:00Z', value: '1' });
const am = (a: PromAlert, silencedBy: string[] = []): AmAlert =>
  ({ labels: a.labels, annotations: {}, startsAt: '2026-01-01T00:00:00Z', endsAt: '', fingerprint: '', receivers: [{ name: 'mail' }], status: { state: 'active', silencedBy, inhibitedBy: [] } });

describe('alerts', () => {
  it('joins muting by label set and adds what only Alertmanager has', () => {
    const a = own('A', 'x', 'warning');
    const foreign = own('Incident', 'x', 'critical');
    expect(joinAlerts([a], [am(a, ['s1'])])[0]).toMatchObject({ silencedBy: ['s1'], receivers: ['mail'], state: 'firing' });
    expect(fromAlertmanager([a], [am(a), am(foreign)]).map((x) => x.labels.alertname)).toEqual(['Incident']);
  });
  it('groups by cluster, the worst first', () => {
    const groups = byCluster(joinAlerts([own('A', 'calm', 'warning', 'pending'), own('B', 'bad', 'critical'), own('C', 'bad', 'warning'), own('D', 'odd', 'warning')], []));
    expect(groups.map((g) => [g.cluster, g.alerts.map((a) => a.labels.alertname)])).toEqual([['bad', ['B', 'C']], ['odd', ['D']], ['calm', ['A']]]);
  });
});

describe('silences', () => {
  const labels = { alertname: 'ReplicaLagHigh', cluster: 'billing', member: 'pg2' };
  const m = (name: string, value: string, isRegex = false, isEqual = true) => ({ name, value, isRegex, isEqual });
  it.each([
    [[m('cluster', 'billing')], true], [[m('cluster', 'bill')], false], [[m('cluster', 'bill.*', true)], true], [[m('cluster', 'ill', true)], false],
    [[m('cluster', 'billing'), m('member', 'pg1')], false], [[m('member', 'pg1', false, false)], true], [[m('absent', '')], true], [[m('cluster', '(', true)], false], [[], false],
  ])('%j mutes: %s', (matchers, muted) => {
    expect(mutes(matchers, labels)).toBe(muted);
  });
  it('writes matchers as Alertmanager does', () => {
    expect([m('a', 'b'), m('a', 'b', true), m('a', 'b', false, false), m('a', 'b', true, false)].map(matcherText)).toEqual(['a="b"', 'a=~"b"', 'a!="b"', 'a!~"b"']);
  });
});
