import type { Cluster, Member } from '../api/types';

/**
 * Members by distance from the top of their replication chain. Members without a known upstream stand at the top when they
 * are primary, else in the row below it: a replica whose link is gone is still a replica.
 */
export function tiers(cluster: Pick<Cluster, 'members'>): Member[][] {
  const byName = new Map(cluster.members.map((m) => [m.name, m]));
  const depth = new Map<string, number>();
  const find = (m: Member, path: Set<string>): number => {
    const known = depth.get(m.name);
    if (known !== undefined) return known;
    const up = m.upstream ? byName.get(m.upstream) : undefined;
    const top = m.role === 'primary' || m.role === 'standby_leader';
    // A loop of upstreams, seen while roles change, ends where it began.
    const d = top ? 0 : up && !path.has(up.name) ? find(up, new Set(path).add(m.name)) + 1 : 1;
    depth.set(m.name, d);
    return d;
  };
  const rows: Member[][] = [];
  for (const m of cluster.members) (rows[find(m, new Set([m.name]))] ??= []).push(m);
  return rows.filter((r) => r?.length);
}
