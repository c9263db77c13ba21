// The server's JSON, by hand. `null` is unknown. Unknown additional fields are allowed and ignored.

export type Health = 'ok' | 'warning' | 'critical' | 'unknown';
export type Severity = 'info' | 'notice' | 'warning' | 'critical';
export type Role = 'primary' | 'replica' | 'sync_standby' | 'quorum_standby' | 'standby_leader' | 'unknown';

export interface Status {
  version: string;
  revision: string | null;
  started_at: string;
  now: string;
  auth: 'none' | 'token';
  role: 'viewer' | 'operator' | 'admin' | 'agent' | null;
  clusters: number;
}

/** What one source claims about a member, and when it last said so. */
export interface SourceClaim {
  source: 'rest' | 'sql' | 'dcs' | 'agent' | string;
  seen_at: string | null;
  up: boolean | null;
  error: string | null;
  says: string | null;
}

export interface Member {
  name: string;
  role: Role;
  state: string;
  writable: boolean | null;
  timeline: number | null;
  lag_bytes: number | null;
  lag_seconds: number | null;
  receive_lag_bytes: number | null;
  lsn: string | null;
  seen_at: string | null;
  host: string | null;
  port: number | null;
  rest_url: string | null;
  postgres_version: string | null;
  patroni_version: string | null;
  postmaster_start_time: string | null;
  upstream: string | null;
  replication_state: string | null;
  pending_restart: boolean | null;
  tags: Record<string, unknown>;
  connections: number | null;
  present: boolean;
  sources: SourceClaim[];
}

export interface DcsMember {
  name: string;
  url: string;
  healthy: boolean | null;
  leader: boolean | null;
  version: string | null;
  db_size_bytes: number | null;
  seen_at: string | null;
  error: string | null;
}

export interface Cluster {
  name: string;
  health: Health;
  reasons: { severity: Severity; text: string }[];
  leader: string | null;
  writable: string[];
  timeline: number | null;
  system_identifier: string | null;
  paused: boolean | null;
  failsafe: boolean | null;
  sync_mode: 'off' | 'on' | 'quorum' | null;
  split_brain: null | {
    state: 'possible' | 'confirmed';
    grade: 'dual' | 'diverged' | 'served' | null;
    members: string[];
    since: string;
  };
  lock: null | {
    owner: string | null;
    lease_ttl_seconds: number | null;
    lease_granted_ttl_seconds: number | null;
    revision: number | null;
    seen_at: string | null;
  };
  dcs: null | {
    kind: string;
    quorum: boolean | null;
    stale: boolean;
    seen_at: string | null;
    members: DcsMember[];
  };
  config: null | {
    ttl: number | null;
    loop_wait: number | null;
    retry_timeout: number | null;
    maximum_lag_on_failover: number | null;
  };
  members: Member[];
}

export interface Event {
  id: string;
  time: string;
  cluster: string | null;
  member: string | null;
  event: string;
  severity: Severity;
  source: string;
  text: string;
  fields: Record<string, unknown>;
}

export interface Evidence {
  source: string;
  time: string | null;
  text: string;
  link: string | null;
}

export interface Cause {
  name: string;
  title: string;
  confidence: 'high' | 'medium' | 'low';
  score: number;
  evidence: Evidence[];
  against: (Evidence | string)[];
  missing: (Evidence | string)[];
  /** The cause that brought this one about. */
  symptom_of?: string | null;
  advice?: string;
}

export interface Incident {
  id: string | number;
  cluster: string;
  title: string;
  severity: Severity;
  state: 'open' | 'acknowledged' | 'settled';
  opened_at: string;
  settled_at: string | null;
  causes: Cause[];
  /** What is concluded, in one line; null until it was looked for. */
  verdict?: string | null;
  /** What could not be seen and would have told more. */
  missing?: string[];
  phases?: { name: string; at: string | null; text?: string | null }[] | Record<string, string | null> | null;
  impact?: Record<string, unknown> | null;
  /** The incident's own copies, oldest first; only in the answer for one incident. */
  events?: Event[];
  events_left_out?: number;
  alerts?: { name: string; severity: Severity; firing_since: string; resolved_at: string | null }[];
}

export interface Target {
  cluster: string | null;
  member: string | null;
  source: string;
  url: string | null;
  up: boolean | null;
  last_ok_at: string | null;
  last_try_at: string | null;
  duration_ms: number | null;
  error: string | null;
  error_hint: string | null;
  interval_seconds: number | null;
  agent: { version: string | null; spool_bytes: number | null } | null;
}

export interface Notification {
  id: string | number;
  created_at: string;
  receiver: string;
  integration: string;
  target: string | null;
  subject: string | null;
  cluster: string | null;
  state: 'queued' | 'inflight' | 'done' | 'dead' | 'superseded';
  attempts: number;
  next_attempt_at: string | null;
  delivered_at: string | null;
  last_error: string | null;
}

// --- Prometheus ---

export type Labels = Record<string, string>;

export interface PromSeries {
  metric: Labels;
  values: [number, string][];
}

export interface PromInstant {
  metric: Labels;
  value: [number, string];
}

export interface PromAlert {
  labels: Labels;
  annotations: Labels;
  state: 'pending' | 'firing' | 'inactive';
  activeAt: string | null;
  value: string;
}

export interface PromRule {
  type: 'alerting' | 'recording';
  name: string;
  query: string;
  duration?: number;
  state?: 'firing' | 'pending' | 'inactive' | 'unknown';
  labels?: Labels;
  annotations?: Labels;
  alerts?: PromAlert[];
  health?: string;
  lastError?: string;
  evaluationTime?: number;
  lastEvaluation?: string;
}

export interface PromRuleGroup {
  name: string;
  file: string;
  interval?: number;
  rules: PromRule[];
}

// --- Alertmanager ---

export interface Matcher {
  name: string;
  value: string;
  isRegex: boolean;
  isEqual?: boolean;
}

export interface Silence {
  id: string;
  status: { state: 'active' | 'pending' | 'expired' };
  matchers: Matcher[];
  startsAt: string;
  endsAt: string;
  updatedAt?: string;
  createdBy: string;
  comment: string;
}

export interface AmAlert {
  labels: Labels;
  annotations: Labels;
  startsAt: string;
  endsAt: string;
  fingerprint: string;
  receivers: { name: string }[];
  status: { state: 'active' | 'suppressed' | 'unprocessed'; silencedBy: string[]; inhibitedBy: string[]; mutedBy?: string[] };
}

// --- Loki ---

export interface LokiStream {
  stream: Labels;
  values: [string, string, unknown?][];
}

/** One log line as the page uses it. `ns` is the exact time in nanoseconds, as text because it exceeds a double. */
export interface LogLine {
  key: string;
  ns: string;
  ms: number;
  line: string;
  labels: Labels;
}
