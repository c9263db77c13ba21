// Numbers beside the navigation: firing alerts and open incidents, refreshed slowly and whenever something happened.
import { alertmanager, api, prometheus } from '../api/client';
import type { Incident } from '../api/types';
import { fromAlertmanager } from '../lib/alerts';
import { byUrgency } from '../lib/incident';
import { live } from './live.svelte';

const EVERY_MS = 15_000;

class Counts {
  firing = $state(0);
  /** Not settled, the most urgent first. */
  open = $state.raw<Incident[]>([]);

  async load(): Promise<void> {
    const [alerts, muted, incidents] = await Promise.allSettled([prometheus.alerts(), alertmanager.alerts(), api.incidents({})]);
    if (alerts.status === 'fulfilled') {
      // The same alerts as the Alerts page lists as firing.
      const others = muted.status === 'fulfilled' ? fromAlertmanager(alerts.value, muted.value) : [];
      this.firing = alerts.value.filter((a) => a.state === 'firing').length + others.length;
    }
    if (incidents.status === 'fulfilled') {
      this.open = incidents.value.filter((i) => i.state !== 'settled').sort(byUrgency);
    }
  }

  openOf(cluster: string): Incident[] {
    return this.open.filter((i) => i.cluster === cluster);
  }

  start(): void {
    $effect.root(() => {
      $effect(() => {
        void live.events[0]?.id;
        void live.connected;
        if (!live.connected) return;
        const soon = setTimeout(() => void this.load(), 400);
        const timer = setInterval(() => {
          if (!document.hidden) void this.load();
        }, EVERY_MS);
        return () => {
          clearTimeout(soon);
          clearInterval(timer);
        };
      });
    });
  }
}

export const alertCounts = new Counts();
