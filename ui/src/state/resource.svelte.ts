// Data that follows its inputs: refetched when they change, the old answer kept (and marked) until the new one is there.
import { untrack } from 'svelte';
import { ApiError } from '../api/client';

export class Resource<T> {
  data = $state.raw<T | null>(null);
  error = $state.raw<ApiError | null>(null);
  loading = $state(false);
  /** How long the last answer took. */
  tookMs = $state(0);
  attempt = $state(0);

  retry = (): void => {
    this.attempt += 1;
  };
}

/**
 * Must be called while a component initialises. `inputs` reads reactive state and returns the fetch to do, or null for
 * nothing; `identity` tells whether the old data may stay on screen meanwhile (same identity) or must go.
 */
export function resource<T>(inputs: () => ((signal: AbortSignal) => Promise<T>) | null, identity: () => string = () => ''): Resource<T> {
  const r = new Resource<T>();
  let shown = '';
  $effect(() => {
    void r.attempt;
    const fetcher = inputs();
    const id = identity();
    const abort = new AbortController();
    untrack(() => {
      if (id !== shown) {
        r.data = null;
        r.error = null;
        shown = id;
      }
      if (!fetcher) {
        r.loading = false;
        return;
      }
      r.loading = true;
      const started = performance.now();
      fetcher(abort.signal).then(
        (data) => {
          if (abort.signal.aborted) return;
          r.data = data;
          r.error = null;
          r.loading = false;
          r.tookMs = performance.now() - started;
        },
        (error: unknown) => {
          if (abort.signal.aborted) return;
          r.error = error instanceof ApiError ? error : new ApiError(0, 'internal', String(error));
          r.loading = false;
        },
      );
    });
    return () => abort.abort();
  });
  return r;
}
