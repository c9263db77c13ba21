// From the mark of an event on a chart or a lane to its line on the same page.

export function jumpToEvent(id: string): void {
  const row = document.querySelector<HTMLElement>(`[data-event="${CSS.escape(id)}"]`);
  if (!row) return;
  row.scrollIntoView({ block: 'center' });
  row.animate({ backgroundColor: ['var(--accent-bg)', 'transparent'] }, 2000);
}
