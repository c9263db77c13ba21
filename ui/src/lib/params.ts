// Query parameters: what a change does to them and which of them follow the reader from page to page. Pure.

export type Patch = Record<string, string | string[] | null>;

/** Applies a patch; null or an empty value removes. The order of parameters is stable, so equal states are equal URLs. */
export function patchParams(params: URLSearchParams, patch: Patch): URLSearchParams {
  const out = new URLSearchParams(params);
  for (const [name, value] of Object.entries(patch)) {
    out.delete(name);
    for (const v of Array.isArray(value) ? value : value === null || value === '' ? [] : [value]) out.append(name, v);
  }
  out.sort();
  return out;
}

const STICKY = ['from', 'to', 'refresh', 'cluster', 'member'];

/** The cluster that a path is about: `/c/NAME`. */
export function clusterOfPath(path: string): string | null {
  const m = /^\/c\/([^/]+)$/.exec(path);
  if (!m) return null;
  try {
    return decodeURIComponent(m[1]!);
  } catch {
    return m[1]!;
  }
}

/** Time range and scope follow to other pages; a cluster's page becomes the scope of what is opened from it. */
export function carriedParams(params: URLSearchParams, fromPath: string, toPath: string): URLSearchParams {
  const out = new URLSearchParams();
  for (const name of STICKY) {
    const value = params.get(name);
    if (value) out.set(name, value);
  }
  const cluster = clusterOfPath(fromPath);
  if (cluster) out.set('cluster', cluster);
  // An incident has a time and a cluster of its own.
  const incident = toPath.startsWith('/incidents/');
  if (incident) for (const name of ['from', 'to']) out.delete(name);
  if (incident || toPath === '/' || clusterOfPath(toPath) !== null) {
    out.delete('cluster');
    out.delete('member');
  }
  out.sort();
  return out;
}

export const clusterPath = (name: string): string => `/c/${encodeURIComponent(name)}`;
