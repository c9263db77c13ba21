// The one crosshair of a page: whatever the pointer is over, every chart and every lane shows the same instant.

class Crosshair {
  /** Milliseconds since the epoch; null while the pointer is over nothing that has a time axis. */
  at = $state<number | null>(null);
}

export const crosshair = new Crosshair();
