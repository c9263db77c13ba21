import { describe, expect, it } from 'vitest';
import { absolute, formatClock, formatDateTime, parseDuration, parseInstant, parseRange, rangeLabel, resolveRange, shift, stepSeconds, ticks, zoomOut } from './time';

const NOW = Date.UTC(2026, 10, 25, 7, 11, 47, 250);
const utc = (...p: [number, number, number, number?, number?, number?]) => Date.UTC(p[0], p[1] - 1, ...(p.slice(2) as [number]));

describe('durations', () => {
  it.each([['90s', 90_000], ['1h30m', 5_400_000], ['2 h', 7_200_000], ['7d', 604_800_000], ['250ms', 250], ['1.5h', 5_400_000]])('%s', (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });
  it.each(['', 'h', '5', '5x', '-5m', '0s', '1h?'])('refuses %j', (text) => {
    expect(parseDuration(text)).toBeNull();
  });
});

describe('instants', () => {
  it.each([
    ['now', NOW], ['now-1h', NOW - 3_600_000], ['-90m', NOW - 5_400_000], ['15m ago', NOW - 900_000],
    ['today', utc(2026, 11, 25)], ['today 06:30', utc(2026, 11, 25, 6, 30)], ['yesterday 14:00', utc(2026, 11, 24, 14)], ['07:05:30', utc(2026, 11, 25, 7, 5, 30)],
    ['2026-11-25', utc(2026, 11, 25)], ['2026-11-25 07:00', utc(2026, 11, 25, 7)], ['2026-11-25T07:00:01', utc(2026, 11, 25, 7, 0, 1)],
    ['2026-11-25T09:00:00+02:00', utc(2026, 11, 25, 7)], ['2026-11-25T07:00:00.500Z', utc(2026, 11, 25, 7) + 500],
    ['1795590000', 1_795_590_000_000], ['1795590000123', 1_795_590_000_123], ['1795590000123000000', 1_795_590_000_123],
  ])('%s', (text, ms) => {
    expect(parseInstant(text, NOW, 'utc')).toBe(ms);
  });
  it.each(['', 'soon', '25:00', '12:60', '2026-13-01', '2026-11-25 24:01', 'yesterday 9', '12345'])('refuses %j', (text) => {
    expect(parseInstant(text, NOW, 'utc')).toBeNull();
  });
});

describe('typed ranges', () => {
  it.each([
    ['2h', 'now-2h', 'now'], ['last 30m', 'now-30m', 'now'], ['now-6h to now-1h', 'now-6h', 'now-1h'],
    ['yesterday 14:00', '2026-11-24T14:00:00.000Z', 'now'], ['yesterday 14:00 to 15:30', '2026-11-24T14:00:00.000Z', '2026-11-24T15:30:00.000Z'],
    ['06:00 .. 07:00', '2026-11-25T06:00:00.000Z', '2026-11-25T07:00:00.000Z'], ['2026-11-20 - 2026-11-21', '2026-11-20T00:00:00.000Z', '2026-11-21T00:00:00.000Z'],
  ])('%s', (text, from, to) => {
    expect(parseRange(text, NOW, 'utc')).toEqual({ range: { from, to } });
  });
  it.each([['blah', 'is not a time'], ['07:00 to 06:00', 'before it starts'], ['now+1h', 'future'], ['1h to 2h to 3h', 'two ends'], ['', 'type a range']])('explains %j', (text, why) => {
    const answer = parseRange(text, NOW, 'utc');
    expect('error' in answer && answer.error).toContain(why);
  });
});

describe('windows', () => {
  it('resolves relative and absolute sides and survives nonsense', () => {
    expect(resolveRange({ from: 'now-15m', to: 'now' }, NOW)).toEqual({ from: NOW - 900_000, to: NOW });
    expect(resolveRange({ from: 'x', to: 'now' }, NOW)).toEqual({ from: NOW - 3_600_000, to: NOW });
    expect(resolveRange({ from: 'now', to: 'now-1h' }, NOW)).toEqual({ from: NOW - 3_600_000, to: NOW });
  });
  it('zooms out and shifts without leaving the past', () => {
    const w = { from: NOW - 3_600_000, to: NOW };
    expect(zoomOut(w, NOW)).toEqual({ from: NOW - 7_200_000, to: NOW });
    expect(shift(w, -1, NOW)).toEqual({ from: NOW - 5_400_000, to: NOW - 1_800_000 });
    expect(shift(w, 1, NOW)).toEqual(w);
  });
  it('freezes to whole milliseconds that contain the window', () => {
    expect(absolute({ from: 1000.6, to: 2000.2 })).toEqual({ from: '1970-01-01T00:00:01.000Z', to: '1970-01-01T00:00:02.001Z' });
  });
  it.each([[3600, 240, 10, 15], [3600, 400, 2, 10], [60, 240, 1, 1], [30 * 86_400, 240, 10, 10_800]])('step for %i s in %i points', (seconds, points, least, step) => {
    expect(stepSeconds({ from: 0, to: seconds * 1000 }, points, least)).toBe(step);
  });
  it('puts ticks on round times', () => {
    const t = ticks({ from: utc(2026, 11, 25, 6, 11), to: utc(2026, 11, 25, 7, 11) }, 6, 'utc');
    expect(t.gap).toBe(600_000);
    expect(t.at.map((ms) => formatClock(ms, 'utc'))).toEqual(['06:20:00', '06:30:00', '06:40:00', '06:50:00', '07:00:00', '07:10:00']);
  });
});

describe('labels', () => {
  it('shows dates and milliseconds', () => {
    expect(formatDateTime(NOW, 'utc', true)).toBe('2026-11-25 07:11:47.250');
  });
  it('names ranges', () => {
    expect(rangeLabel({ from: 'now-1h', to: 'now' }, 'utc', NOW)).toBe('Last 1h');
    expect(rangeLabel({ from: '2026-11-24T14:00:00.000Z', to: '2026-11-24T15:30:00.000Z' }, 'utc', NOW)).toBe('2026-11-24 14:00:00 – 15:30:00');
    expect(rangeLabel({ from: '2026-11-25T06:00:00.000Z', to: '2026-11-25T06:30:00.000Z' }, 'utc', NOW)).toBe('06:00:00 – 06:30:00');
    expect(rangeLabel({ from: '2026-11-25T06:00:00.000Z', to: 'now' }, 'utc', NOW)).toBe('06:00:00 – now');
    expect(rangeLabel({ from: '2026-11-24T23:00:00.000Z', to: '2026-11-25T01:00:00.000Z' }, 'utc', NOW)).toBe('2026-11-24 23:00:00 – 2026-11-25 01:00:00');
  });
});
