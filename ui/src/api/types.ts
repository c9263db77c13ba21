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
  /** Behind the member that it streams from, for cascading replicas. */
  upstream_lag_bytes?: number | null;
  /** Replay is delayed on purpose by so long; lag is judged without it. */
  apply_delay_seconds?: number | null;
  /** How far the clock of its host is ahead of the server's, and how wrong that may be. */
  clock_skew_seconds?: number | null;
  clock_skew_error_seconds?: number | null;
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

/** Who would win if the leader failed now. */
export interface Readiness {
  /** null: nobody could take over, or nobody can tell; `blockers` says why. */
  candidate: string | null;
  lag_bytes: number | null;
  blockers: string[];
  /** All other members, the best first. */
  candidates: { member: string; lag_bytes: number | null; blockers: string[]; risks: string[] }[];
}

/** When a leader that the DCS no longer confirms must have demoted itself. */
export interface Demotion {
  member: string;
  basis: 'quorum_lost' | 'dcs_blind' | 'lease_not_renewed';
  due_at: string;
  lease_ends_at: string | null;
  /** False: failsafe mode may keep it, or its Patroni may be dead, or may see a DCS that the server does not see. */
  certain: boolean;
}

/** Whether the host of one member can connect to a port of another. */
export interface Reach {
  from: string;
  target: string;
  port: 'postgres' | 'rest';
  reachable: boolean;
  failure: string | null;
  seen_at: string;
}

/** What an operator asked Patroni for. */
export interface FailoverRequest {
  kind: 'switchover' | 'manual_failover';
  leader: string | null;
  candidate: string | null;
  scheduled_at: string | null;
  set_at: string;
  outcome: 'pending' | 'completed' | 'failed' | 'withdrawn' | 'replaced';
  ended_at: string | null;
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
  /** `host:port` that a standby cluster follows. */
  standby_of?: string | null;
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
    failsafe_mode?: boolean | null;
  };
  demotion?: Demotion | null;
  readiness?: Readiness | null;
  requests?: FailoverRequest[];
  reachability?: Reach[];
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
  /** What it proves, in words. */
  sign?: string;
}

export type Confidence = 'high' | 'medium' | 'low';

export interface Cause {
  name: string;
  title: string;
  /** Whose fault it is, where it is one member's. */
  member?: string | null;
  confidence: Confidence;
  score: number;
  evidence: Evidence[];
  against: Evidence[];
  missing: string[];
  /** The cause that brought this one about. */
  symptom_of?: string | null;
  advice?: string;
}

export type PhaseName =
  | 'trigger' | 'detected' | 'lease_expired' | 'released' | 'lock_taken' | 'promoted' | 'first_write' | 'last_replica_streaming';

/** What it cost; null is not measured. */
export interface Impact {
  write_outage_seconds?: number | null;
  write_outage_error_seconds?: number | null;
  /** As a write probe felt it; null without a probe, or when it felt nothing. */
  client_outage_seconds?: number | null;
  /** How much shorter that may have been. */
  client_outage_error_seconds?: number | null;
  split_brain_seconds?: number | null;
  /** `FROM..TO`. */
  lost_wal?: string | null;
  /** 0 only when that is proven. */
  lost_wal_bytes?: number | null;
}

/** A message about one incident, on its way to one receiver. */
export interface IncidentMessage {
  id: string;
  at: string;
  receiver: string;
  integration: string;
  target: string | null;
  kind: 'opening' | 'update' | 'closing';
  reason?: string | null;
  subject: string | null;
  state: Delivery;
  attempts: number;
  delivered_at: string | null;
  next_attempt_at: string | null;
  error: string | null;
}

export interface Incident {
  id: string;
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
  /** Only what is known, in the order of its times; each later `trigger` begins another round. */
  phases?: { name: PhaseName; at: string }[];
  impact?: Impact;
  /** The incident's own copies, oldest first. */
  events?: Event[];
  events_left_out?: number;
  alerts?: { name: string; severity: Severity; firing_since: string; resolved_at: string | null }[];
  /** The alert that opened it, when no event did. */
  opener?: string | null;
  acknowledged_at?: string | null;
  acknowledged_by?: string | null;
  /** Oldest first. */
  notes?: { at: string; by: string; text: string }[];
  /** How often it came back soon after settling. */
  reopened?: number;
  /** When, oldest first. */
  reopened_at?: string[];
  /** Only in the answer for one incident, best first. */
  similar?: SimilarIncident[];
  /** Only in the answer for one incident, oldest first. */
  notifications?: IncidentMessage[];
}

export interface SimilarIncident {
  id: string;
  cluster: string;
  title: string;
  opened_at: string;
  settled_at: string | null;
  cause: { name: string; title: string } | null;
  score: number;
}

/** A kind of log line of one stream, with how often it came before the incident and during it. */
export interface LogPattern {
  source: string;
  member: string;
  pattern: string;
  lines_before: number;
  lines_during: number;
  first_seen: string;
  last_seen: string;
  /** Of the vanished ones the longest silence; `to` is null when it goes on to the window's end. */
  silent?: { from: string; to: string | null } | null;
  query: string;
}

export interface PatternComparison {
  window: { before: string; start: string; end: string };
  lines: number;
  new: LogPattern[];
  vanished: LogPattern[];
  changed: LogPattern[];
  without_baseline: { source: string; member: string }[];
  left_out: number;
  partial: string | null;
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

export type Delivery = 'queued' | 'inflight' | 'done' | 'dead' | 'superseded';

export interface Notification {
  id: string | number;
  created_at: string;
  receiver: string;
  integration: string;
  target: string | null;
  subject: string | null;
  cluster: string | null;
  /** The incident that it tells of. */
  incident?: string | null;
  state: Delivery;
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
