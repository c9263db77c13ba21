// What belongs to the reader rather than to the page: theme and time zone, kept in this browser.
import type { Zone } from '../lib/time';

export type Theme = 'system' | 'dark' | 'light';

function load<T extends string>(name: string, allowed: readonly T[], fallback: T): T {
  try {
    const value = localStorage.getItem(`daraji.${name}`);
    return allowed.includes(value as T) ? (value as T) : fallback;
  } catch {
    return fallback;
  }
}

function save(name: string, value: string): void {
  try {
    localStorage.setItem(`daraji.${name}`, value);
  } catch {
    // Storage may be off; the choice then lasts as long as the page.
  }
}

const THEMES = ['system', 'dark', 'light'] as const;

class Prefs {
  theme = $state<Theme>(load('theme', THEMES, 'system'));
  zone = $state<Zone>(load('zone', ['local', 'utc'] as const, 'local'));
  /** The theme in effect; charts redraw when it changes. */
  effective = $state<'dark' | 'light'>('dark');

  #media = matchMedia('(prefers-color-scheme: light)');

  start(): void {
    this.#media.addEventListener('change', () => this.#apply());
    this.#apply();
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    save('theme', theme);
    this.#apply();
  }

  nextTheme(): void {
    this.setTheme(THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length]!);
  }

  setZone(zone: Zone): void {
    this.zone = zone;
    save('zone', zone);
  }

  #apply(): void {
    const light = this.theme === 'light' || (this.theme === 'system' && this.#media.matches);
    this.effective = light ? 'light' : 'dark';
    document.documentElement.dataset.theme = this.effective;
  }
}

export const prefs = new Prefs();
