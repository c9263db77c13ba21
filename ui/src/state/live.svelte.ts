// Live state of all clusters and their events, by server-sent events. When the stream breaks the last known state stays,
// with its age, until the server answers again.
import { api, onUnauthorized, request } from '../api/client';
import type { Cluster, Event, Status } from '../api/types';
import { clock } from './clock.svelte';

const MAX_EVENTS = 500;
const BACKOFF_MS = [1000, 2000, 4000, 8000, 15_000];
/** Without a message for this long the state is asked for, so a silent half-open connection is noticed. */
const SILENCE_MS = 10_000;

class Live {
  /** null until the first answer. */
  clusters = $state.raw<Cluster[] | null>(null);
  /** Newest first. */
  events = $state.raw<Event[]>([]);
  status = $state.raw<Status | null>(null);
  connected = $state(false);
  /** Browser time of the last word from the server. */
  heardAt = $state(0);
  /** True once a first connection attempt has failed or a connection was lost. */
  lost = $state(false);
  needsToken = $state(false);
  /** The latest change worth saying aloud, for assistive technology. */
  announcement = $state('');

  #source: EventSource | null = null;
  #failures = 0;
  #timer = 0;

  start(): void {
    onUnauthorized(() => {
      this.needsToken = true;
    });
    this.#connect();
    setInterval(() => void this.#checkSilence(), 2000);
    addEventListener('online', () => this.reconnect());
  }

  /** Why nothing may be changed, for the person who wants to; null when it may, or when only the server can tell. */
  get forbidden(): string | null {
    const role = this.status?.auth === 'token' ? this.status.role : null;
    return role === 'viewer' || role === 'agent' ? `Your token's role is ${role}: this needs operator or admin.` : null;
  }

  cluster(name: string): Cluster | null {
    return this.clusters?.find((c) => c.name === name) ?? null;
  }

  reconnect = (): void => {
    clearTimeout(this.#timer);
    this.#failures = 0;
    this.#connect();
  };

  #connect(): void {
    this.#source?.close();
    const source = new EventSource('/api/daraji/v1/events?stream=1');
    this.#source = source;
    source.addEventListener('open', () => {
      this.#heard();
      this.#failures = 0;
      void this.#refreshStatus();
      void this.#loadEvents();
    });
    source.addEventListener('clusters', (message) => {
      this.#heard();
      this.clusters = JSON.parse((message as MessageEvent<string>).data) as Cluster[];
    });
    source.addEventListener('event', (message) => {
      this.#heard();
      this.#add([JSON.parse((message as MessageEvent<string>).data) as Event], true);
    });
    // The server had more events than this connection could take: fetch what is left out.
    source.addEventListener('missed', () => {
      this.#heard();
      void this.#loadEvents();
    });
    source.addEventListener('error', () => {
      if (this.#source !== source) return;
      source.close();
      this.#source = null;
      this.connected = false;
      this.lost = true;
      // An event source hides the status; ask once so that a 401 becomes the token prompt.
      if (this.#failures === 0) void this.#refreshStatus().catch(() => undefined);
      const wait = BACKOFF_MS[Math.min(this.#failures, BACKOFF_MS.length - 1)]!;
      this.#failures += 1;
      clearTimeout(this.#timer);
      this.#timer = window.setTimeout(() => this.#connect(), wait);
    });
  }

  #heard(): void {
    this.heardAt = Date.now();
    this.connected = true;
    this.lost = false;
    this.needsToken = false;
  }

  async #refreshStatus(): Promise<void> {
    try {
      const status = await api.status();
      this.status = status;
      clock.align(status.now);
    } catch {
      // The stream's own state says whether the server answers.
    }
  }

  async #checkSilence(): Promise<void> {
    if (!this.connected || document.hidden || Date.now() - this.heardAt < SILENCE_MS) return;
    try {
      this.clusters = await request<Cluster[]>('/api/daraji/v1/clusters');
      this.heardAt = Date.now();
    } catch {
      this.lost = true;
      this.connected = false;
      this.reconnect();
    }
  }

  async #loadEvents(): Promise<void> {
    try {
      this.#add(await api.events({ limit: 200 }), false);
    } catch {
      // Panels that show events for a range fetch their own and report errors there.
    }
  }

  #add(events: Event[], announce: boolean): void {
    const known = new Set(this.events.map((e) => e.id));
    const fresh = [...new Map(events.map((e) => [e.id, e])).values()].filter((e) => !known.has(e.id));
    if (fresh.length === 0) return;
    this.events = [...fresh, ...this.events].sort((a, b) => (a.time < b.time ? 1 : a.time > b.time ? -1 : 0)).slice(0, MAX_EVENTS);
    const loud = fresh.find((e) => e.severity === 'critical' || e.severity === 'warning' || e.event === 'leader_changed');
    if (announce && loud) this.announcement = `${loud.cluster ?? ''}: ${loud.text}`;
  }
}

export const live = new Live();
