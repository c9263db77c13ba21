// One ticking clock for all ages on screen, corrected to the server's time so that a wrong browser clock shows no wrong ages.

class Clock {
  /** The server's time, as far as known, to the second. */
  now = $state(Date.now());
  #offset = 0;

  read(): number {
    return Date.now() + this.#offset;
  }

  /** Takes over the server's `now`; differences under two seconds are transport, not skew. */
  align(serverNow: string): void {
    const ms = Date.parse(serverNow);
    if (Number.isNaN(ms)) return;
    const offset = ms - Date.now();
    this.#offset = Math.abs(offset) < 2000 ? 0 : offset;
  }

  start(): void {
    setInterval(() => {
      this.now = this.read();
    }, 1000);
  }
}

export const clock = new Clock();

/** Milliseconds since an RFC 3339 time; null when it never happened. */
export function ageOf(time: string | null | undefined, now: number): number | null {
  if (!time) return null;
  const ms = Date.parse(time);
  return Number.isNaN(ms) ? null : Math.max(0, now - ms);
}
