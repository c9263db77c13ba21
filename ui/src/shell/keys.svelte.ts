// Keyboard: what works everywhere. Pages register what `j`, `k`, `Enter` and Escape mean to them through `list`, and give
// a control of theirs a key of its own by the attribute `aria-keyshortcuts`.
import { go, href } from '../state/url.svelte';
import { time } from '../state/time.svelte';
import { prefs } from '../state/prefs.svelte';

class Ui {
  palette = $state(false);
  help = $state(false);
}

export const ui = new Ui();

export interface ListKeys {
  move: (step: 1 | -1) => void;
  open: () => void;
  close?: () => void;
}

let list: ListKeys | null = null;

/** The list that `j`, `k` and Enter act on; returns the undo for the component's teardown. */
export function useListKeys(keys: ListKeys): () => void {
  list = keys;
  return () => {
    if (list === keys) list = null;
  };
}

export const GO: { key: string; title: string; path: string; icon: string }[] = [
  { key: 'o', title: 'Overview', path: '/', icon: 'overview' },
  { key: 'i', title: 'Incidents', path: '/incidents', icon: 'incidents' },
  { key: 'l', title: 'Logs', path: '/logs', icon: 'logs' },
  { key: 'm', title: 'Metrics', path: '/explore', icon: 'metrics' },
  { key: 'a', title: 'Alerts', path: '/alerts', icon: 'alerts' },
  { key: 't', title: 'Targets', path: '/targets', icon: 'targets' },
];

export const HELP: { title: string; rows: [string, string][] }[] = [
  {
    title: 'Go',
    rows: [['g o', 'Overview'], ['g c', 'a cluster (opens the palette)'], ['g i', 'Incidents'], ['g l', 'Logs'], ['g m', 'Metrics'], ['g a', 'Alerts'], ['g t', 'Targets'], ['Ctrl K', 'find anything']],
  },
  { title: 'Lists', rows: [['/', 'focus the search'], ['j  k', 'next, previous row'], ['Enter', 'open the row'], ['Esc', 'close, leave the field']] },
  { title: 'Time', rows: [['t', 'open the time control'], ['[  ]', 'earlier, later'], ['-', 'zoom out'], ['r', 'reload now'], ['drag', 'on any chart: zoom in']] },
  { title: 'Incident', rows: [['a', 'acknowledge'], ['n', 'write a note'], ['Ctrl Enter', 'add the note']] },
  { title: 'View', rows: [['z', 'local time or UTC'], ['d', 'theme: system, dark, light'], ['?', 'this help']] },
];

let pendingGo = 0;

const typing = (t: EventTarget | null) => t instanceof HTMLElement && (t.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(t.tagName));

function goKey(key: string): boolean {
  if (key === 'c') {
    ui.palette = true;
    return true;
  }
  const page = GO.find((p) => p.key === key);
  if (page) go(href(page.path));
  return page !== undefined;
}

const SINGLE: Record<string, () => void> = {
  '?': () => { ui.help = !ui.help; },
  '/': () => focusSearch(),
  j: () => list?.move(1),
  k: () => list?.move(-1),
  t: () => document.getElementById('time-button')?.click(),
  '[': () => time.shift(-1),
  ']': () => time.shift(1),
  '-': () => time.zoomOut(),
  r: () => time.reload(),
  z: () => prefs.setZone(prefs.zone === 'utc' ? 'local' : 'utc'),
  d: () => prefs.nextTheme(),
};

function focusSearch(): void {
  const field = document.querySelector<HTMLElement>('[data-search]');
  if (field) field.focus();
  else ui.palette = true;
}

export function handleKey(e: KeyboardEvent): void {
  if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === 'k') {
    e.preventDefault();
    ui.palette = !ui.palette;
    return;
  }
  if (e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented || document.querySelector('dialog[open]')) return;
  if (e.key === 'Escape') {
    if (typing(e.target)) (e.target as HTMLElement).blur();
    else list?.close?.();
    return;
  }
  if (typing(e.target)) return;
  if (pendingGo && Date.now() - pendingGo < 1200) {
    pendingGo = 0;
    if (goKey(e.key)) e.preventDefault();
    return;
  }
  if (e.key === 'g') {
    pendingGo = Date.now();
    return;
  }
  if (e.key === 'Enter') {
    // Enter on a focused control is that control's.
    if (list && (e.target === document.body || (e.target as Element).id === 'main')) list.open();
    return;
  }
  const action = SINGLE[e.key];
  if (action) {
    e.preventDefault();
    action();
    return;
  }
  const control = /^[a-z]$/.test(e.key) ? document.querySelector<HTMLElement>(`main [aria-keyshortcuts="${e.key}"]`) : null;
  if (control) {
    e.preventDefault();
    if (typing(control)) control.focus();
    else control.click();
  }
}
