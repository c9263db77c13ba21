// One journey per page, as a DBA would walk it. They hold against the fixture and against a real server (DARAJI_URL).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { noProblems, noSidewaysScroll, settled, start } from './harness.mjs';

let world;
let clusters;
before(async () => {
  world = await start();
  clusters = await world.clusters();
  assert.ok(clusters.length > 0, 'the server watches no cluster');
});
after(() => world.stop());

const name = () => (clusters.find((c) => c.name === 'orders-prod') ?? clusters[0]).name;
const param = (page, key) => new URL(page.url()).searchParams.get(key);

test('overview: every cluster with its health, filter, open one', async () => {
  const page = await world.page();
  await page.open('/');
  for (const c of clusters) await page.getByRole('main').getByRole('link', { name: c.name, exact: true }).first().waitFor();
  await page.getByLabel('Filter clusters').fill(name());
  await page.waitForFunction((n) => document.querySelectorAll('[data-cluster-row]').length === n, clusters.filter((c) => JSON.stringify([c.name, c.leader, c.members.map((m) => m.name)]).includes(name())).length);
  assert.equal(param(page, 'q'), name());
  await page.getByLabel('Filter clusters').fill('no such cluster');
  await page.getByText('No cluster matches').waitFor();
  await page.getByRole('button', { name: 'Show all' }).click();
  await page.getByRole('main').getByRole('link', { name: name(), exact: true }).first().click();
  await page.getByRole('heading', { level: 1, name: name() }).waitFor();
  await page.goBack();
  await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
  noProblems(page);
});

test('cluster: topology and its table, lanes, lock, evidence of a fact, charts', async () => {
  const page = await world.page();
  await page.open(`/c/${encodeURIComponent(name())}`);
  const cluster = (await world.clusters()).find((c) => c.name === name());
  for (const m of cluster.members) await page.locator('.node', { hasText: m.name }).waitFor();
  await page.getByRole('region', { name: 'Leadership' }).getByRole('img', { name: new RegExp(`^${cluster.members[0].name}:`) }).waitFor();
  if (cluster.dcs) await page.getByRole('region', { name: 'DCS' }).getByText('Lock owner').waitFor();
  await page.locator('.node').first().focus();
  const card = page.getByRole('tooltip');
  await card.waitFor();
  assert.match(await card.innerText(), /Patroni REST|PostgreSQL|DCS key/);
  await page.keyboard.press('Escape');
  await card.waitFor({ state: 'detached' });
  await page.getByRole('button', { name: /^timeline/ }).focus();
  await card.waitFor();
  assert.match(await card.innerText(), new RegExp(`Timeline[\\s\\S]*${cluster.members[0].name}[\\s\\S]*(now|ago)`));
  await page.keyboard.press('Escape');
  if (cluster.lock?.owner) {
    await page.getByRole('region', { name: 'DCS' }).getByRole('button', { name: cluster.lock.owner, exact: true }).first().focus();
    await card.getByText('Leader key', { exact: true }).waitFor();
    assert.match(await card.innerText(), /DCS keys[\s\S]*revision[\s\S]*(now|ago)/);
    await page.keyboard.press('Escape');
  }
  await page.getByRole('group', { name: 'Topology view' }).getByRole('button', { name: 'Table' }).click();
  await page.getByRole('columnheader', { name: 'Replicates from' }).waitFor();
  assert.equal(param(page, 'view'), 'table');
  await page.getByRole('img', { name: /^Replication lag:/ }).waitFor();
  noProblems(page);
});

test('a drag on a chart sets the range of all, zoom out and live bring it back', async () => {
  const page = await world.page();
  await page.open(`/c/${encodeURIComponent(name())}`);
  const chart = page.getByRole('img', { name: /^Transactions:/ });
  await chart.scrollIntoViewIfNeeded();
  const box = await chart.boundingBox();
  await page.mouse.move(box.x + box.width * 0.5, box.y + 40);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.8, box.y + 50, { steps: 8 });
  await page.mouse.up();
  await page.waitForFunction(() => new URLSearchParams(location.search).has('from'));
  const first = Date.parse(param(page, 'to')) - Date.parse(param(page, 'from'));
  assert.ok(first > 10 * 60_000 && first < 30 * 60_000, `brushed ${first} ms of one hour`);
  await page.getByRole('button', { name: 'Zoom out' }).click();
  await page.waitForFunction((n) => { const p = new URLSearchParams(location.search); return Date.parse(p.get('to')) - Date.parse(p.get('from')) > n * 1.9; }, first);
  await page.getByRole('button', { name: 'Go live' }).click();
  await page.waitForFunction(() => !new URLSearchParams(location.search).has('from'));
  noProblems(page);
});

test('time control: typed ranges, presets, an explained mistake', async () => {
  const page = await world.page();
  await page.open('/');
  await page.locator('#time-button').click();
  await page.getByLabel('From – to, or a span').fill('next week');
  await page.getByText('is not a time').waitFor();
  await page.getByLabel('From – to, or a span').fill('yesterday 14:00 to 15:30');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => /T14:00/.test(new URLSearchParams(location.search).get('from') ?? ''));
  assert.match(param(page, 'to'), /T15:30/);
  await page.locator('#time-button').click();
  await page.getByRole('button', { name: '6h', exact: true }).click();
  assert.equal(param(page, 'from'), 'now-6h');
  await page.reload();
  await page.locator('#time-button', { hasText: 'Last 6h' }).waitFor();
  noProblems(page);
});

test('logs: search, histogram, facets, a row with its fields and context', async () => {
  const page = await world.page();
  await page.open('/logs');
  await page.locator('button.line').first().waitFor();
  await page.getByRole('img', { name: /^Lines over time/ }).waitFor();

  // A facet narrows, or leaves out; removing the filter widens again.
  const facets = page.getByRole('complementary', { name: 'Facets' });
  const source = facets.getByRole('region', { name: 'source' }).locator('button.value').first();
  await source.waitFor();
  const value = await source.locator('.text').innerText();
  await source.click();
  await page.waitForFunction((v) => new URLSearchParams(location.search).getAll('f').includes(`source=${v}`), value);
  await settled(page);
  await page.waitForFunction((v) => [...document.querySelectorAll('button.line .source')].length > 0 && [...document.querySelectorAll('button.line .source')].every((s) => s.textContent === v), value);
  await page.getByRole('button', { name: `Remove filter source ${value}` }).click();
  await page.waitForFunction(() => !new URLSearchParams(location.search).has('f'));

  await settled(page);
  await source.hover();
  await facets.getByRole('button', { name: `Exclude source ${value}`, exact: true }).click();
  await page.waitForFunction((v) => new URLSearchParams(location.search).getAll('f').includes(`source!=${v}`), value);
  await settled(page);
  await page.waitForFunction((v) => ![...document.querySelectorAll('button.line .source')].some((s) => s.textContent === v), value);
  await page.getByRole('button', { name: `Remove filter source ${value}` }).click();
  await page.waitForFunction(() => !new URLSearchParams(location.search).has('f'));

  // A row opens in place, and its fields filter.
  await settled(page);
  await page.locator('button.line').first().click();
  await page.locator('.detail').getByRole('button', { name: /^Exclude severity / }).waitFor();
  assert.ok(param(page, 'row'));
  await page.getByRole('button', { name: /^20 lines around/ }).click();
  await page.locator('.context [aria-current="true"]').waitFor();
  await page.getByRole('button', { name: 'All members at this time' }).click();
  await page.locator('.context [aria-current="true"]').waitFor();

  // Nothing found teaches what to do.
  await page.getByLabel('Search logs by text or LogQL').fill('surely-nobody-wrote-this');
  await page.keyboard.press('Enter');
  await page.getByText('No lines match').waitFor();
  await page.getByRole('button', { name: 'Clear the search' }).click();
  await page.locator('button.line').first().waitFor();
  noProblems(page);
});

test('logs: LogQL is accepted, and a mistake in it is shown where it was made', async () => {
  const page = await world.page();
  await page.open('/logs');
  await page.getByLabel('Search logs by text or LogQL').fill('{cluster=~".+"} |= `a`');
  await page.keyboard.press('Enter');
  await page.getByText('LogQL', { exact: true }).waitFor();
  await page.locator('button.line').first().waitFor();
  noProblems(page);
  await page.getByLabel('Search logs by text or LogQL').fill('{broken');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').first().waitFor();
  await page.getByRole('button', { name: 'Retry' }).first().waitFor();
});

test('logs: a click on a bar replaces the range', async () => {
  const page = await world.page();
  await page.open('/logs?from=now-30m');
  const plot = page.getByRole('img', { name: /^Lines over time/ });
  const box = await plot.boundingBox();
  await page.mouse.move(box.x + box.width * 0.3, box.y + 30);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.6, box.y + 30, { steps: 6 });
  await page.mouse.up();
  await page.waitForFunction(() => new URLSearchParams(location.search).has('to'));
  const span = Date.parse(param(page, 'to')) - Date.parse(param(page, 'from'));
  assert.ok(span > 7 * 60_000 && span < 11 * 60_000, `dragged over ${span} ms of half an hour`);
  noProblems(page);
});

test('logs: live tail brings lines, pauses and resumes', async () => {
  const page = await world.page();
  await page.open('/logs');
  await page.getByRole('button', { name: 'Live tail' }).click();
  await page.locator('button.line').first().waitFor({ timeout: 30_000 });
  await page.getByRole('button', { name: 'Pause' }).click();
  const shown = await page.locator('button.line').count();
  await page.waitForFunction(() => /Resume \([1-9]/.test(document.body.innerText), undefined, { timeout: 30_000 });
  assert.equal(await page.locator('button.line').count(), shown, 'the list moved while paused');
  await page.getByRole('button', { name: /^Resume/ }).click();
  await page.waitForFunction((n) => document.querySelectorAll('button.line').length > n, shown);
  await page.getByRole('button', { name: 'Stop tail' }).click();
  await page.getByRole('img', { name: /^Lines over time/ }).waitFor();
  noProblems(page);
});

test('alerts: rules with expression and file, a silence made and expired, notifications', async () => {
  const page = await world.page();
  await page.open('/alerts');
  await page.getByRole('tab', { name: /^Rules/ }).click();
  await page.getByText(/\.ya?ml/).first().waitFor();
  await page.getByRole('tab', { name: /^Notifications/ }).click();
  await settled(page);

  await page.getByRole('button', { name: 'New silence' }).first().click();
  const dialog = page.getByRole('dialog', { name: 'New silence' });
  await dialog.getByLabel('Label 1').fill('alertname');
  await dialog.getByLabel('Value 1').fill('BrowserTestOnly');
  await dialog.getByText('Matches none of the alerts').waitFor();
  await dialog.getByLabel('Your name').fill('browser test');
  assert.ok(await dialog.getByRole('button', { name: 'Silence', exact: true }).isDisabled(), 'a comment is required');
  await dialog.getByLabel('Why').fill('made by a test');
  await dialog.getByRole('button', { name: 'Silence', exact: true }).click();
  await dialog.waitFor({ state: 'detached' });
  await page.getByRole('tab', { name: /^Silences/ }).click();
  const row = page.getByRole('row', { name: /BrowserTestOnly/ }).first();
  await row.getByText('active').waitFor();
  await row.getByRole('button', { name: 'Expire' }).click();
  await page.waitForFunction(() => !document.body.innerText.includes('BrowserTestOnly'));
  noProblems(page);
});

test('targets: each collector with its last success, problems only', async () => {
  const page = await world.page();
  await page.open('/targets');
  await page.getByRole('columnheader', { name: 'Last success' }).first().waitFor();
  await page.getByRole('button', { name: 'Problems only' }).click();
  assert.equal(param(page, 'problems'), '1');
  await page.waitForFunction(() => !/\bup\b/.test([...document.querySelectorAll('main table tbody td:first-child')].map((td) => td.textContent).join(' ')));
  noProblems(page);
});

test('incidents: the list, and one with its story when there is one', async () => {
  const page = await world.page();
  await page.open('/incidents');
  const links = page.locator('[data-incident]');
  if (await links.count()) {
    const title = await links.last().locator('strong').innerText();
    await links.last().click();
    await page.getByRole('heading', { level: 1, name: title }).waitFor();
    await page.getByRole('region', { name: /^(Cause|No cause is proven)$/ }).waitFor();
    for (const name of ['Phases', 'Leadership', 'Timeline', 'Log patterns', 'Notes', 'Messages sent', 'Similar before']) await page.getByRole('region', { name, exact: true }).waitFor();
    await settled(page);
    await noSidewaysScroll(page);
  } else {
    await page.getByText('No incident yet').waitFor();
  }
  noProblems(page);
});

test('metrics: a starter, completion, chart and table', async () => {
  const page = await world.page();
  await page.open('/explore');
  await page.getByRole('button', { name: 'Replication lag' }).click();
  await page.getByRole('region', { name: 'Table' }).waitFor();
  const box = page.getByLabel('PromQL expression 1');
  await box.fill('');
  await box.pressSequentially('max(daraji_member_r');
  await page.getByRole('button', { name: 'daraji_member_role' }).waitFor();
  await page.keyboard.press('Tab');
  assert.equal(await box.inputValue(), 'max(daraji_member_role');
  await box.pressSequentially(')');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => new URLSearchParams(location.search).get('expr') === 'max(daraji_member_role)');
  await settled(page);
  noProblems(page);
  await box.fill('sum(up');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').waitFor();
});

test('the scope follows from a cluster to its logs, alerts and targets', async () => {
  const page = await world.page();
  await page.open(`/c/${encodeURIComponent(name())}?from=now-3h`);
  for (const [link, path] of [['Logs', '/logs'], ['Alerts', '/alerts'], ['Targets', '/targets']]) {
    await page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: new RegExp(`^${link}`) }).click();
    await page.waitForURL((u) => u.pathname === path && u.searchParams.get('cluster') === name() && u.searchParams.get('from') === 'now-3h');
  }
  await settled(page);
  noProblems(page);
});

test('narrow: no page is wider than a phone', async () => {
  const page = await world.page({ width: 390, height: 844 });
  for (const path of ['/', `/c/${encodeURIComponent(name())}`, '/logs', '/alerts', '/alerts?tab=rules', '/alerts?tab=silences', '/alerts?tab=notifications', '/targets', '/incidents', '/explore?expr=up']) {
    await page.open(path);
    await noSidewaysScroll(page);
  }
  noProblems(page);
});

test('an unknown address and an unknown cluster say so', async () => {
  const page = await world.page();
  await page.open('/nowhere');
  await page.getByText('Nothing is at /nowhere').waitFor();
  await page.open('/c/no-such-cluster');
  await page.getByText('No cluster of this name is watched').waitFor();
  noProblems(page);
});
