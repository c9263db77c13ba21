import { describe, expect, it } from 'vitest';
import { buildLogql, needles, splitMatches, facetQuery, filterText, histogramQuery, lineFilters, parseFilter, quote, removeFilter, selectorEnd, toggleFilter, withoutField, type Filter } from './logql';

const f = (text: string): Filter => parseFilter(text)!;

describe('filters in the URL', () => {
  it.each(['severity=error', 'source!=etcd', 'application=a=b', 'event='])('%s keeps its text', (text) => {
    expect(filterText(f(text))).toBe(text);
  });
  it.each(['', '=x', 'no operator', '1a=b'])('ignores %j', (text) => {
    expect(parseFilter(text)).toBeNull();
  });
});

describe('words', () => {
  it.each<[string, string[]]>([
    ['disk full', ['|= `disk`', '|= `full`']], ['"no space left"', ['|= `no space left`']], ['promote -pg3', ['|= `promote`', '!= `pg3`']],
    ['/dead(lock)?/', ['|~ `dead(lock)?`']], ['-/hb_.*/', ['!~ `hb_.*`']], ['/var/lib/x', ['|= `/var/lib/x`']], ['"open end', ['|= `open end`']],
    ['a`b', ['|= "a`b"']], ['  ', []], ['""', []],
  ])('%j', (text, filters) => {
    expect(lineFilters(text)).toEqual(filters);
  });
  it('escapes what backticks cannot hold', () => {
    expect(quote('a\nb')).toBe('"a\\nb"');
    expect(quote('say "hi"')).toBe('`say "hi"`');
  });
});

describe('building', () => {
  it.each<[string, string[], string]>([
    ['', [], '{cluster=~".+"}'],
    ['disk', ['cluster=orders'], '{cluster="orders"} |= `disk`'],
    ['', ['severity=error', 'severity=critical'], '{severity=~"error|critical"}'],
    ['', ['severity!=info'], '{cluster=~".+", severity!="info"}'],
    ['', ['source!=etcd', 'source!=haproxy', 'cluster=a.b'], '{source!~"etcd|haproxy", cluster="a.b"}'],
    ['', ['cluster=a.b', 'cluster=c'], '{cluster=~"a\\\\.b|c"}'],
    ['x', ['cluster=a', 'sqlstate=53100', 'event!=hb_leader'], '{cluster="a"} |= `x` | sqlstate="53100" | event!="hb_leader"'],
    ['{source="patroni"} |= `lock`', [], '{source="patroni"} |= `lock`'],
    ['{source="patroni"} |= `lock`', ['cluster=a', 'pid=7'], '{source="patroni", cluster="a"} |= `lock` | pid="7"'],
    ['{x="}"}', ['cluster=a'], '{x="}", cluster="a"}'],
    ['{broken', ['cluster=a'], '{broken'],
  ])('%j with %j', (text, filters, logql) => {
    expect(buildLogql({ text, filters: filters.map(f) })).toBe(logql);
  });
  it('wraps for the histogram and for facets', () => {
    expect(histogramQuery('{cluster="a"} |= `x`', 30)).toBe('sum by (severity) (count_over_time({cluster="a"} |= `x` [30s]))');
    expect(facetQuery('{cluster="a"}', 'member', 3600)).toBe('topk(10, sum by (member) (count_over_time({cluster="a"} [3600s])))');
  });
  it('finds the end of a selector outside strings', () => {
    expect(selectorEnd('{a="}"} x')).toBe(6);
    expect(selectorEnd('{a="\\"}"}')).toBe(8);
    expect(selectorEnd('{a=`}`')).toBe(-1);
  });
});

describe('marking matches', () => {
  const split = (text: string, line: string) => splitMatches(line, needles(text));
  it.each<[string, string, string[]]>([
    ['full', 'disk full', ['disk ', 'full', '']], ['a.c', 'abc a.c', ['abc ', 'a.c', '']], ['-x y', 'x y', ['x ', 'y', '']],
    ['/d.ad/', 'deadlock', ['', 'dead', 'lock']], ['{a="b"} |= `lock` != "x"', 'lock x', ['', 'lock', ' x']], ['{a="b"} |~ "lo+k"', 'look', ['', 'look', '']],
    ['', 'plain', ['plain']], ['/(?P<x>a)/', 'a', ['a']], ['/x*/', 'ab', ['ab']],
  ])('%j in %j', (text, line, parts) => {
    expect(split(text, line)).toEqual(parts);
  });
});

describe('clicking', () => {
  const start = [f('severity=error'), f('member=pg1')];
  const texts = (list: Filter[]) => list.map(filterText);
  it('includes, excludes and takes back', () => {
    expect(texts(toggleFilter(start, 'member', 'pg2', 'include'))).toEqual(['severity=error', 'member=pg1', 'member=pg2']);
    expect(texts(toggleFilter(start, 'member', 'pg1', 'include'))).toEqual(['severity=error']);
    expect(texts(toggleFilter(start, 'member', 'pg1', 'exclude'))).toEqual(['severity=error', 'member!=pg1']);
    expect(texts(toggleFilter(start, 'member', 'pg3', 'only'))).toEqual(['severity=error', 'member=pg3']);
    expect(texts(removeFilter(start, f('severity=error')))).toEqual(['member=pg1']);
  });
  it('leaves its own field out of a facet', () => {
    expect(texts(withoutField({ text: '', filters: start }, 'member').filters)).toEqual(['severity=error']);
  });
});
