// All HTTP goes through here: one place for errors, deadlines and the 401 that asks for a token.
import type {
  AmAlert, Cluster, Event, Incident, Labels, LogLine, LokiStream, Matcher, Notification, PatternComparison, PromAlert,
  PromInstant, PromRuleGroup, PromSeries, Silence, Status, Target,
} from './types';

const DEADLINE_MS = 30_000;

/** A failed request, in words for the person who reads it. `status` is 0 when no answer came. */
export class ApiError extends Error {
  constructor(readonly status: number, readonly code: string, message: string, readonly detail: string | null = null) {
    super(message);
  }
}

type Listener = () => void;
const unauthorized = new Set<Listener>();

/** Calls `listener` whenever the server asks for a token. */
export function onUnauthorized(listener: Listener): () => void {
  unauthorized.add(listener);
  return () => unauthorized.delete(listener);
}

/** The error bodies of our own API, Prometheus, Alertmanager (a JSON string or message) and Loki (plain text). */
async function errorOf(response: Response): Promise<ApiError> {
  const text = (await response.text().catch(() => '')).slice(0, 2000);
  let code = `http_${response.status}`;
  let message = text.trim() || `${response.status} ${response.statusText}`;
  try {
    const body = JSON.parse(text);
    if (typeof body === 'string') message = body;
    else if (body?.error?.message) ({ code, message } = { code: body.error.code ?? code, message: body.error.message });
    else if (typeof body?.error === 'string') ({ code, message } = { code: body.errorType ?? code, message: body.error });
    else if (typeof body?.message === 'string') message = body.message;
  } catch {
    // Not JSON: the text itself is the message.
  }
  return new ApiError(response.status, code, message);
}

export async function request<T>(path: string, init: RequestInit & { signal?: AbortSignal } = {}): Promise<T> {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  const signal = init.signal ? AbortSignal.any([init.signal, deadline]) : deadline;
  let response: Response;
  try {
    response = await fetch(path, { ...init, signal, credentials: 'same-origin' });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    if (deadline.aborted) throw new ApiError(0, 'timeout', `no answer within ${DEADLINE_MS / 1000} s`);
    throw new ApiError(0, 'unreachable', 'the server does not answer');
  }
  if (response.status === 401) unauthorized.forEach((listener) => listener());
  if (!response.ok) throw await errorOf(response);
  if (response.status === 204) return undefined as T;
  const text = await response.text();
  try {
    return (text ? JSON.parse(text) : undefined) as T;
  } catch {
    throw new ApiError(response.status, 'bad_body', `the answer of ${path.split('?')[0]} is not JSON`);
  }
}

export function query(params: Record<string, string | number | null | undefined>): string {
  const out = new URLSearchParams();
  for (const [k, v] of Object.entries(params)) if (v !== null && v !== undefined && v !== '') out.set(k, String(v));
  const text = out.toString();
  return text ? `?${text}` : '';
}

const OWN = '/api/daraji/v1';
const incidentPath = (id: string) => `${OWN}/incidents/${encodeURIComponent(id)}`;
const json = (method: string, body: unknown) => ({ method, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });

// Lists may come bare or wrapped in an object by a later version; both are read.
function list<T>(body: unknown, name: string): T[] {
  if (Array.isArray(body)) return body as T[];
  const inner = (body as Record<string, unknown> | null)?.[name];
  return Array.isArray(inner) ? (inner as T[]) : [];
}

export const api = {
  status: (signal?: AbortSignal) => request<Status>(`${OWN}/status`, { signal }),
  clusters: async (signal?: AbortSignal) => list<Cluster>(await request(`${OWN}/clusters`, { signal }), 'clusters'),
  events: async (p: Record<string, string | number | null>, signal?: AbortSignal) =>
    list<Event>(await request(`${OWN}/events${query(p)}`, { signal }), 'events'),
  incidents: async (p: Record<string, string | null>, signal?: AbortSignal) =>
    list<Incident>(await request(`${OWN}/incidents${query(p)}`, { signal }), 'incidents'),
  incident: (id: string, signal?: AbortSignal) => request<Incident>(incidentPath(id), { signal }),
  /** The server compares up to two seconds for this. */
  patterns: (id: string, signal?: AbortSignal) => request<PatternComparison>(`${incidentPath(id)}/patterns`, { signal }),
  acknowledge: (id: string, comment: string) => request<Incident>(`${incidentPath(id)}/acknowledge`, json('POST', comment ? { comment } : {})),
  takeBack: (id: string) => request<Incident>(`${incidentPath(id)}/acknowledge`, { method: 'DELETE' }),
  addNote: (id: string, text: string) => request<Incident>(`${incidentPath(id)}/notes`, json('POST', { text })),
  /** Where a browser finds the incident as a page of its own, or as JSON. */
  incidentUrl: (id: string, format: 'html' | 'json') => incidentPath(id) + (format === 'html' ? '?format=html' : ''),
  targets: async (signal?: AbortSignal) => list<Target>(await request(`${OWN}/targets`, { signal }), 'targets'),
  notifications: async (signal?: AbortSignal) =>
    list<Notification>(await request(`${OWN}/notifications?limit=100`, { signal }), 'notifications'),
  login: (token: string) =>
    request<void>(`${OWN}/session`, json('POST', { token })),
  logout: () => request<void>(`${OWN}/session`, { method: 'DELETE' }),
};

interface PromBody<T> {
  status: 'success' | 'error';
  data: T;
  warnings?: string[];
}

async function prom<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await request<PromBody<T>>(path, { signal })).data;
}

export const prometheus = {
  queryRange: async (expr: string, fromMs: number, toMs: number, stepS: number, signal?: AbortSignal) => {
    const p = query({ query: expr, start: fromMs / 1000, end: toMs / 1000, step: stepS });
    const data = await prom<{ resultType: string; result: PromSeries[] }>(`/api/v1/query_range${p}`, signal);
    return data.result ?? [];
  },
  query: async (expr: string, atMs: number, signal?: AbortSignal) => {
    const data = await prom<{ resultType: string; result: unknown }>(`/api/v1/query${query({ query: expr, time: atMs / 1000 })}`, signal);
    if (data.resultType === 'scalar') return [{ metric: {}, value: data.result as [number, string] }];
    return data.resultType === 'vector' ? (data.result as PromInstant[]) : [];
  },
  metricNames: (signal?: AbortSignal) => prom<string[]>('/api/v1/label/__name__/values', signal),
  rules: async (signal?: AbortSignal) => (await prom<{ groups: PromRuleGroup[] }>('/api/v1/rules', signal)).groups ?? [],
  alerts: async (signal?: AbortSignal) => (await prom<{ alerts: PromAlert[] }>('/api/v1/alerts', signal)).alerts ?? [],
};

export const alertmanager = {
  alerts: (signal?: AbortSignal) => request<AmAlert[]>('/api/v2/alerts', { signal }),
  silences: (signal?: AbortSignal) => request<Silence[]>('/api/v2/silences', { signal }),
  createSilence: (s: { matchers: Matcher[]; startsAt: string; endsAt: string; createdBy: string; comment: string }) =>
    request<{ silenceID: string }>('/api/v2/silences', json('POST', s)),
  expireSilence: (id: string) => request<void>(`/api/v2/silence/${encodeURIComponent(id)}`, { method: 'DELETE' }),
};

/** Lines of several streams in one list; fields may come merged into the labels or as Loki's third element. */
export function logLines(streams: LokiStream[], newestFirst = true): LogLine[] {
  const lines: LogLine[] = [];
  const seen = new Map<string, number>();
  for (const s of streams) {
    for (const [ns, line, extra] of s.values) {
      const more = extra as { structuredMetadata?: Labels; parsed?: Labels } | undefined;
      const labels = more ? { ...s.stream, ...more.structuredMetadata, ...more.parsed } : s.stream;
      const base = `${ns}-${labels.member ?? ''}-${labels.source ?? ''}-${hash(line)}`;
      const n = seen.get(base) ?? 0;
      seen.set(base, n + 1);
      lines.push({ key: n ? `${base}-${n}` : base, ns, ms: Number(BigInt(ns) / 1_000_000n), line, labels });
    }
  }
  const order = newestFirst ? -1 : 1;
  return lines.sort((a, b) => (a.ns.length !== b.ns.length ? (a.ns.length - b.ns.length) * order : a.ns < b.ns ? -order : a.ns > b.ns ? order : 0));
}

function hash(text: string): string {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i += 1) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return (h >>> 0).toString(36);
}

const ns = (ms: number) => `${Math.round(ms)}000000`;

export const loki = {
  lines: async (logql: string, p: { startNs: string; endNs: string; limit: number; direction: 'backward' | 'forward' }, signal?: AbortSignal) => {
    const q = query({ query: logql, start: p.startNs, end: p.endNs, limit: p.limit, direction: p.direction });
    const data = (await request<PromBody<{ result: LokiStream[] }>>(`/loki/api/v1/query_range${q}`, { signal })).data;
    return logLines(data.result ?? [], p.direction === 'backward');
  },
  matrix: async (logql: string, fromMs: number, toMs: number, stepS: number, signal?: AbortSignal) => {
    const q = query({ query: logql, start: ns(fromMs), end: ns(toMs), step: `${stepS}s` });
    return (await request<PromBody<{ result: PromSeries[] }>>(`/loki/api/v1/query_range${q}`, { signal })).data.result ?? [];
  },
  vector: async (logql: string, atMs: number, signal?: AbortSignal) => {
    const q = query({ query: logql, time: ns(atMs) });
    return (await request<PromBody<{ result: PromInstant[] }>>(`/loki/api/v1/query${q}`, { signal })).data.result ?? [];
  },
  tailUrl: (logql: string) => {
    const base = location.origin.replace(/^http/, 'ws');
    return `${base}/loki/api/v1/tail${query({ query: logql, limit: 100 })}`;
  },
};
