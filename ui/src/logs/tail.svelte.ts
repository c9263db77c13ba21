// Live tail over Loki's websocket. Newest on top, a fixed number kept; while paused lines wait in a bounded buffer.
import { logLines, loki } from '../api/client';
import type { LogLine, LokiStream } from '../api/types';

const KEEP = 1000;
const BUFFER = 5000;
const RENDER_MS = 250;
const RATE_MS = 5000;
const BACKOFF_MS = [500, 1000, 2000, 5000, 10_000];

export class Tail {
  lines = $state.raw<LogLine[]>([]);
  state = $state<'closed' | 'connecting' | 'open' | 'lost'>('closed');
  paused = $state(false);
  buffered = $state(0);
  /** Lines per second over the last five seconds. */
  rate = $state(0);
  /** Lines that the server says it could not send, plus those that did not fit the buffer while paused. */
  dropped = $state(0);

  #socket: WebSocket | null = null;
  #waiting: LogLine[] = [];
  #arrivals: { at: number; n: number }[] = [];
  #timer = 0;
  #retry = 0;
  #failures = 0;
  #seq = 0;

  open(logql: string): void {
    this.close();
    this.lines = [];
    this.#waiting = [];
    this.dropped = 0;
    this.paused = false;
    this.#connect(logql);
    this.#timer = window.setInterval(() => this.#render(), RENDER_MS);
  }

  close(): void {
    clearInterval(this.#timer);
    clearTimeout(this.#retry);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.state = 'closed';
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
    this.#render();
  }

  #connect(logql: string): void {
    this.state = 'connecting';
    const socket = new WebSocket(loki.tailUrl(logql));
    this.#socket = socket;
    socket.onopen = () => {
      this.state = 'open';
      this.#failures = 0;
    };
    socket.onmessage = (message) => this.#take(String(message.data));
    socket.onclose = () => {
      if (this.#socket !== socket) return;
      this.state = 'lost';
      const wait = BACKOFF_MS[Math.min(this.#failures, BACKOFF_MS.length - 1)]!;
      this.#failures += 1;
      this.#retry = window.setTimeout(() => this.#connect(logql), wait);
    };
  }

  #take(text: string): void {
    const body = JSON.parse(text) as { streams?: LokiStream[] | null; dropped_entries?: unknown[] | null };
    // Equal lines of one instant may come in two messages, so each gets a number of its own.
    const fresh = logLines(body.streams ?? []).map((l) => ({ ...l, key: `${l.key}-t${(this.#seq += 1)}` }));
    this.dropped += body.dropped_entries?.length ?? 0;
    this.#arrivals.push({ at: Date.now(), n: fresh.length });
    this.#waiting = [...fresh, ...this.#waiting];
    if (this.#waiting.length > BUFFER) {
      this.dropped += this.#waiting.length - BUFFER;
      this.#waiting.length = BUFFER;
    }
  }

  #render(): void {
    const now = Date.now();
    this.#arrivals = this.#arrivals.filter((a) => now - a.at < RATE_MS);
    this.rate = this.#arrivals.reduce((n, a) => n + a.n, 0) / (RATE_MS / 1000);
    this.buffered = this.#waiting.length;
    if (this.paused || this.#waiting.length === 0) return;
    this.lines = [...this.#waiting, ...this.lines].slice(0, KEEP);
    this.#waiting = [];
    this.buffered = 0;
  }
}
