import { describe, expect, it } from 'vitest';
import type { Cause, Incident } from '../api/types';
import { chartsFor } from './charts';

const cause = (name: string, confidence: Cause['confidence'] = 'high') => ({ name, confidence }) as Cause;
const of = (over: Partial<Incident>) => chartsFor({ causes: [], events: [], alerts: [], phases: [], ...over } as unknown as Incident).map((c) => c.id);

describe('the series of an incident', () => {
  it('follow the first cause, then the others, each once', () => {
    expect(of({ causes: [cause('disk_full_wal')], phases: [{ name: 'lock_taken', at: '' }] })).toEqual(['disk', 'disk-busy', 'wal', 'tps', 'lag']);
    expect(of({ causes: [cause('clock_stepped'), cause('connections_exhausted')] })).toEqual(['skew', 'connections', 'tps']);
    expect(of({ causes: [cause('etcd_slow'), cause('disk_full_data', 'low')] })).toEqual(['dcs-age', 'fsync', 'lease', 'tps', 'connections']);
  });
  it('follow events and alerts where no cause is known', () => {
    expect(of({ events: [{ event: 'replica_broken' }] as Incident['events'] })).toEqual(['lag', 'lag-time', 'tps', 'connections']);
    expect(of({ alerts: [{ name: 'SplitBrain' }] as Incident['alerts'] })).toContain('writable');
  });
  it('are a few, also when everything is wrong, and some, also when nothing is known', () => {
    expect(of({ causes: ['disk_full_wal', 'etcd_slow', 'host_lost', 'replay_slow', 'out_of_memory_patroni'].map((n) => cause(n)) }).length).toBe(6);
    expect(of({})).toEqual(['tps', 'connections']);
  });
});
