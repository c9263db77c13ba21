// One floating card for the whole page: who says a fact, and how old that is. Shown on hover, focus and tap; Escape closes it.
import type { Snippet } from 'svelte';

class Tip {
  content = $state.raw<Snippet | null>(null);
  anchor = $state.raw<HTMLElement | null>(null);
  #hide = 0;

  show(anchor: HTMLElement, content: Snippet): void {
    clearTimeout(this.#hide);
    this.anchor = anchor;
    this.content = content;
  }

  /** A short delay lets the pointer move onto the card. */
  hide = (now = false): void => {
    clearTimeout(this.#hide);
    const clear = () => {
      this.content = null;
      this.anchor = null;
    };
    if (now) clear();
    else this.#hide = window.setTimeout(clear, 140);
  };

  keep = (): void => clearTimeout(this.#hide);
}

export const tip = new Tip();
