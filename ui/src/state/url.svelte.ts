// The URL is the state. Pages read `url.path` and `url.params`; they change only by `go` and `setParams`, so back, forward,
// reload and a copied link always show the same thing.

import { carriedParams, patchParams, type Patch } from '../lib/params';

class Url {
  path = $state(location.pathname);
  params = $state.raw(new URLSearchParams(location.search));
}

export const url = new Url();

function read(): void {
  url.path = location.pathname;
  url.params = new URLSearchParams(location.search);
}

function write(path: string, params: URLSearchParams, replace: boolean): void {
  const search = params.toString();
  const target = search ? `${path}?${search}` : path;
  if (target === location.pathname + location.search) return;
  if (replace) history.replaceState(null, '', target);
  else history.pushState(null, '', target);
  read();
}

/** A link to a page of ours that keeps time range and scope. */
export function href(path: string, patch: Patch = {}): string {
  const search = patchParams(carriedParams(url.params, url.path, path), patch).toString();
  return search ? `${path}?${search}` : path;
}

export function go(target: string, replace = false): void {
  const [path = '/', search = ''] = target.split('?', 2);
  const moved = path !== url.path;
  write(path, new URLSearchParams(search), replace);
  if (moved) window.scrollTo(0, 0);
}

export function setParams(patch: Patch, replace = false): void {
  write(url.path, patchParams(url.params, patch), replace);
}

/** Follows links of ours without a reload; modified clicks, downloads and other origins stay the browser's. */
function onClick(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element | null)?.closest?.('a');
  if (!link || link.target || link.hasAttribute('download') || link.origin !== location.origin || link.hash) return;
  if (/^\/(api\/|loki\/|-\/|federate$|metrics$)/.test(link.pathname)) return;
  event.preventDefault();
  go(link.pathname + link.search);
}

export function startRouter(): void {
  addEventListener('popstate', read);
  document.addEventListener('click', onClick);
}
