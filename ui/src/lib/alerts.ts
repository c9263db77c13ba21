// Alerts of the rules joined with what Alertmanager says about their muting. Pure.
import type { AmAlert, Delivery, Labels, Matcher, PromAlert } from '../api/types';
import type { Tone } from './health';

/** How far a message has come, in words. */
export const DELIVERY: Record<Delivery, { tone: Tone; word: string }> = {
  queued: { tone: 'stale', word: 'queued' }, inflight: { tone: 'info', word: 'sending' }, done: { tone: 'ok', word: 'delivered' },
  dead: { tone: 'critical', word: 'gave up' }, superseded: { tone: 'unknown', word: 'superseded' },
};

export interface ShownAlert {
  key: string;
  labels: Labels;
  annotations: Labels;
  state: 'pending' | 'firing';
  since: string | null;
  value: string | null;
  silencedBy: string[];
  inhibitedBy: string[];
  receivers: string[];
}

export const labelKey = (labels: Labels): string =>
  Object.keys(labels).sort().map((k) => `${k}=${labels[k]}`).join('\u0000');

export function joinAlerts(own: PromAlert[], am: AmAlert[]): ShownAlert[] {
  const muted = new Map(am.map((a) => [labelKey(a.labels), a]));
  return own.filter((a) => a.state !== 'inactive').map((a) => {
    const key = labelKey(a.labels);
    const m = muted.get(key);
    return {
      key, labels: a.labels, annotations: a.annotations ?? {}, state: a.state as 'pending' | 'firing', since: a.activeAt, value: a.value,
      silencedBy: m?.status.silencedBy ?? [], inhibitedBy: m?.status.inhibitedBy ?? [], receivers: m?.receivers?.map((r) => r.name) ?? [],
    };
  });
}

/** Alerts that no rule of ours produced: incidents, and whatever others post to /api/v2/alerts. */
export function fromAlertmanager(own: PromAlert[], am: AmAlert[]): ShownAlert[] {
  const known = new Set(own.map((a) => labelKey(a.labels)));
  return am.filter((a) => !known.has(labelKey(a.labels))).map((a) => ({
    key: labelKey(a.labels), labels: a.labels, annotations: a.annotations ?? {}, state: 'firing', since: a.startsAt, value: null,
    silencedBy: a.status.silencedBy ?? [], inhibitedBy: a.status.inhibitedBy ?? [], receivers: a.receivers?.map((r) => r.name) ?? [],
  }));
}

const RANK: Record<string, number> = { critical: 0, error: 0, warning: 1, notice: 2, info: 3 };

/** By cluster, clusters with the worst alert first; inside, firing before pending, worst and newest first. */
export function byCluster(alerts: ShownAlert[]): { cluster: string; alerts: ShownAlert[] }[] {
  const rank = (a: ShownAlert) => (a.state === 'firing' ? 0 : 10) + (a.silencedBy.length || a.inhibitedBy.length ? 4 : 0) + (RANK[a.labels.severity ?? ''] ?? 2);
  const groups = new Map<string, ShownAlert[]>();
  for (const a of alerts) {
    const name = a.labels.cluster ?? '';
    groups.set(name, [...(groups.get(name) ?? []), a]);
  }
  return [...groups.entries()]
    .map(([cluster, list]) => ({ cluster, alerts: list.sort((a, b) => rank(a) - rank(b) || (b.since ?? '').localeCompare(a.since ?? '')) }))
    .sort((a, b) => rank(a.alerts[0]!) - rank(b.alerts[0]!) || a.cluster.localeCompare(b.cluster));
}

/** Whether a silence with these matchers would mute the alert. Regular expressions are anchored, as in Alertmanager. */
export function mutes(matchers: Matcher[], labels: Labels): boolean {
  return matchers.length > 0 && matchers.every((m) => {
    const value = labels[m.name] ?? '';
    let hit: boolean;
    try {
      hit = m.isRegex ? new RegExp(`^(?:${m.value})$`).test(value) : value === m.value;
    } catch {
      return false;
    }
    return (m.isEqual ?? true) ? hit : !hit;
  });
}

export const matcherText = (m: Matcher): string =>
  `${m.name}${(m.isEqual ?? true) ? (m.isRegex ? '=~' : '=') : m.isRegex ? '!~' : '!='}"${m.value}"`;
