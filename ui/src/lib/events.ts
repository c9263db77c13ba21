// What an event says beyond its sentence, in short words. Pure.
import type { Event } from '../api/types';

const field = (e: Pick<Event, 'fields'>, name: string): string => (e.fields?.[name] === undefined || e.fields[name] === null ? '' : String(e.fields[name]));

/** Why the leader key went away. `unknown` is told by no word: the sentence says that it was found missing. */
const LOSS_WORD: Record<string, string> = { lease_expired: 'lease expired', released: 'released', deleted_by_hand: 'deleted by hand' };
/** Why all sources of a member are silent. */
const LOST_WORD: Record<string, string> = {
  monitor_cut_off: 'only Daraji is cut off', down: 'nothing listens there', unreachable_from_all: 'no agent reaches it', unknown: 'only Daraji has tried',
};
const CLASS_WORD: Record<string, string> = {
  failover: 'failover', switchover: 'switchover', restart_through_recovery: 'restart through recovery', crash_restart: 'crash restart', key_retaken: 'key retaken',
};
const LEADER_EVENTS = new Set(['leader_lost', 'leader_changed', 'leader_returned', 'leader_loss_explained', 'leader_change_measured', 'dcs_leader_deleted']);

/** Short facts that stand beside an event's name: planned or not, what kind of change, why, from which timeline to which. */
export function eventChips(e: Event): string[] {
  const out: string[] = [];
  const add = (word: string | undefined) => { if (word && !out.includes(word)) out.push(word); };
  if (e.event === 'leader_changed') add({ true: 'planned', false: 'unplanned', unknown: 'planned or not is unknown' }[field(e, 'planned')]);
  if (LEADER_EVENTS.has(e.event)) {
    add(CLASS_WORD[field(e, 'cause_class')]);
    add(LOSS_WORD[field(e, 'reason')]);
  }
  if (e.event === 'member_lost') add(LOST_WORD[field(e, 'reason')]);
  const [before, after] = [field(e, 'old_timeline'), field(e, 'new_timeline')];
  if (before && after && before !== after) add(`TL ${before} → ${after}`);
  return out;
}

/** A planned change of the leader: a notice, and no incident. */
export const isPlannedChange = (e: Event): boolean => e.event === 'leader_changed' && field(e, 'planned') === 'true';
