import { describe, expect, it } from 'vitest';
import type { Event } from '../api/types';
import { eventChips, isPlannedChange } from './events';

const event = (name: string, fields: Record<string, unknown>): Event => ({ id: name, time: '', cluster: 'c', member: 'm', event: name, severity: 'info', source: 'judge', text: '', fields });

describe('short facts of an event', () => {
  it.each<[string, Record<string, unknown>, string[]]>([
    ['leader_lost', { reason: 'lease_expired', old_timeline: '6' }, ['lease expired']],
    ['leader_lost', { reason: 'unknown' }, []],
    ['leader_changed', { planned: 'false', cause_class: 'failover', reason: 'released', old_timeline: '6', new_timeline: '7' }, ['unplanned', 'failover', 'released', 'TL 6 → 7']],
    ['leader_changed', { planned: 'true', cause_class: 'switchover' }, ['planned', 'switchover']],
    ['leader_changed', { planned: 'unknown' }, ['planned or not is unknown']],
    ['leader_changed', {}, []],
    ['leader_returned', { cause_class: 'key_retaken', reason: 'deleted_by_hand' }, ['key retaken', 'deleted by hand']],
    ['member_lost', { reason: 'monitor_cut_off' }, ['only Daraji is cut off']],
    ['timeline_changed', { old_timeline: '6', new_timeline: '7' }, ['TL 6 → 7']],
    ['timeline_changed', { old_timeline: '7', new_timeline: '7' }, []],
    ['config_changed', { reason: 'released' }, []],
  ])('%s %o', (name, fields, chips) => {
    expect(eventChips(event(name, fields))).toEqual(chips);
  });
});

it('knows a notice from an incident', () => {
  expect(isPlannedChange(event('leader_changed', { planned: 'true' }))).toBe(true);
  expect(isPlannedChange(event('leader_changed', { planned: 'unknown' }))).toBe(false);
  expect(isPlannedChange(event('leader_lost', { planned: 'true' }))).toBe(false);
});
