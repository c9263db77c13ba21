// Drag on an element to select a horizontal span of it. The selection is a child element, so any chart can use it.
import type { Attachment } from 'svelte/attachments';

/** `select` receives both ends as fractions (0 to 1) of the element's width; a click without a drag calls `click`. */
export function brush(select: (from: number, to: number) => void, click?: (at: number) => void): Attachment<HTMLElement> {
  return (node) => {
    const mark = document.createElement('div');
    mark.className = 'brush';
    mark.style.cssText = 'position:absolute;top:0;bottom:0;display:none;background:color-mix(in srgb,var(--accent) 22%,transparent);border-inline:1px solid var(--accent);pointer-events:none;';
    node.append(mark);
    let start: number | null = null;
    const at = (e: PointerEvent) => {
      const box = node.getBoundingClientRect();
      return Math.max(0, Math.min(1, (e.clientX - box.left) / box.width));
    };
    const draw = (a: number, b: number) => {
      mark.style.display = 'block';
      mark.style.left = `${Math.min(a, b) * 100}%`;
      mark.style.width = `${Math.abs(b - a) * 100}%`;
    };
    const stop = () => {
      start = null;
      mark.style.display = 'none';
    };
    const down = (e: PointerEvent) => {
      if (e.button !== 0 || (e.target as Element).closest('button, a')) return;
      start = at(e);
      node.setPointerCapture(e.pointerId);
    };
    const move = (e: PointerEvent) => {
      if (start !== null) draw(start, at(e));
    };
    const up = (e: PointerEvent) => {
      if (start === null) return;
      const from = Math.min(start, at(e));
      const to = Math.max(start, at(e));
      const dragged = (to - from) * node.clientWidth >= 4;
      stop();
      if (dragged) select(from, to);
      else click?.(to);
    };
    node.addEventListener('pointerdown', down);
    node.addEventListener('pointermove', move);
    node.addEventListener('pointerup', up);
    node.addEventListener('pointercancel', stop);
    return () => {
      node.removeEventListener('pointerdown', down);
      node.removeEventListener('pointermove', move);
      node.removeEventListener('pointerup', up);
      node.removeEventListener('pointercancel', stop);
      mark.remove();
    };
  };
}
