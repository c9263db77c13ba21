// The one time control behind every page: range from the URL, resolved against the server's clock at each refresh.
import {
  absolute, DEFAULT_RANGE, isLive, parseDuration, resolveRange, shift, zoomOut, type Range, type Window,
} from '../lib/time';
import { clock } from './clock.svelte';
import { setParams, url } from './url.svelte';

export const REFRESHES = ['off', '5s', '10s', '30s', '1m'] as const;

class Time {
  #tick = $state(0);
  /** The range of a page that is about a time of its own, such as an incident; used while the URL names none. */
  home = $state.raw<Range | null>(null);
  #chosen = $derived(url.params.has('from') || url.params.has('to'));
  range = $derived<Range>(
    this.home && !this.#chosen
      ? this.home
      : { from: url.params.get('from') ?? DEFAULT_RANGE.from, to: url.params.get('to') ?? DEFAULT_RANGE.to },
  );
  /** Something else than the page's own time is shown. */
  away = $derived(this.home !== null && this.#chosen);
  live = $derived(isLive(this.range));
  refresh = $derived(url.params.get('refresh') ?? '10s');
  /** Milliseconds between refreshes; null while the range is fixed or the reader switched it off. */
  everyMs = $derived(this.live && this.refresh !== 'off' ? Math.max(parseDuration(this.refresh) ?? 10_000, 1000) : null);
  window = $derived.by<Window>(() => {
    void this.#tick;
    return resolveRange(this.range, clock.read());
  });

  set(range: Range): void {
    const plain = this.home === null && range.from === DEFAULT_RANGE.from && range.to === DEFAULT_RANGE.to;
    setParams(plain ? { from: null, to: null } : { from: range.from, to: range.to });
  }

  /** Back to the page's own time, or to the last hour. */
  reset(): void {
    setParams({ from: null, to: null });
  }

  /** A span dragged on a chart. Spans under one second are slips of the hand. */
  brush(w: Window): void {
    if (w.to - w.from >= 1000) this.set(absolute(w));
  }

  zoomOut(): void {
    this.set(absolute(zoomOut(this.window, clock.read())));
  }

  shift(direction: -1 | 1): void {
    this.set(absolute(shift(this.window, direction, clock.read())));
  }

  setRefresh(every: string): void {
    setParams({ refresh: every === '10s' ? null : every }, true);
  }

  reload(): void {
    this.#tick += 1;
  }

  /** The address of this page with the range frozen, so that the link shows the same tomorrow. */
  permalink(): string {
    const frozen = absolute(this.window);
    const params = new URLSearchParams(url.params);
    params.set('from', frozen.from);
    params.set('to', frozen.to);
    params.sort();
    return `${location.origin}${url.path}?${params}`;
  }

  start(): void {
    $effect.root(() => {
      $effect(() => {
        const every = this.everyMs;
        if (every === null) return;
        const timer = setInterval(() => {
          if (!document.hidden) this.reload();
        }, every);
        return () => clearInterval(timer);
      });
    });
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden && this.everyMs !== null) this.reload();
    });
  }
}

export const time = new Time();
