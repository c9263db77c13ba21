// Numbers beside the navigation: firing alerts and open incidents, refreshed slowly and whenever something happened.
import { alertmanager, api, prometheus } from '../api/client';
import { fromAlertmanager } from '../lib/alerts';
import { live } from './live.svelte';

const EVERY_MS = 15_000;

class Counts {
  firing = $state(0);
  incidents = $state(0);
  openByCluster = $state.raw<Map<string, number>>(new Map());

  async load(): Promise<void> {
    const [alerts, muted, incidents] = await Promise.allSettled([prometheus.alerts(), alertmanager.alerts(), api.incidents({})]);
    if (alerts.status === 'fulfilled') {
      // The same alerts as the Alerts page lists as firing.
      const others = muted.status === 'fulfilled' ? fromAlertmanager(alerts.value, muted.value) : [];
      this.firing = alerts.value.filter((a) => a.state === 'firing').length + others.length;
    }
    if (incidents.status === 'fulfilled') {
      const open = incidents.value.filter((i) => i.state !== 'settled');
      const by = new Map<string, number>();
      for (const i of open) by.set(i.cluster, (by.get(i.cluster) ?? 0) + 1);
      this.incidents = open.length;
      this.openByCluster = by;
    }
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
