// States that a real server reaches only in trouble, produced by the fixture.
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { fixtureOnly, noProblems, start } from './harness.mjs';

let world;
before(async () => { world = await start(); });
after(() => world.stop());
beforeEach(async () => { if (world.fixture) await world.dev('scenario', { name: 'live' }); });

test('a failover appears live, without a reload', fixtureOnly, async () => {
  const page = await world.page();
  await page.open('/c/orders-prod');
  await page.evaluate(() => { window.notReloaded = true; });
  const before = await page.locator('.node.primary strong').innerText();
  await world.dev('failover', { gap: 3 });
  await page.getByText('no leader for').first().waitFor();
  await page.waitForFunction((old) => { const p = document.querySelector('.node.primary strong'); return p && p.textContent !== old; }, before);
  await page.getByRole('region', { name: 'Events' }).getByText('leader changed').first().waitFor();
  assert.equal(await page.evaluate(() => window.notReloaded), true);
  noProblems(page);
});

test('split brain is an alarm that names both members', fixtureOnly, async () => {
  const page = await world.page();
  await world.dev('scenario', { name: 'splitbrain' });
  await page.open('/c/orders-prod');
  const alarm = page.getByRole('alert');
  await alarm.waitFor();
  assert.match(await alarm.innerText(), /Split brain confirmed[\s\S]*pg1 and pg\d/);
  await page.getByText(/accepted writes at the same time/).waitFor();
});

test('without DCS quorum the lock is shown as last known, with its age, and no leader as current', fixtureOnly, async () => {
  const page = await world.page();
  await world.dev('scenario', { name: 'dcs-stale' });
  await page.open('/c/orders-prod');
  const dcs = page.getByRole('region', { name: 'DCS' });
  await dcs.getByText('Last owner').waitFor();
  assert.match(await dcs.innerText(), /stale, \d+ s old/);
  assert.equal(await page.getByText('leader lock').count(), 0, 'a stale lock must not look current');
  await page.open('/');
  await page.getByText('leader unknown, DCS facts are stale').waitFor();
});

test('a lost member is stale, never healthy, and its lag unknown, never zero', fixtureOnly, async () => {
  const page = await world.page();
  await world.dev('scenario', { name: 'member-lost' });
  await page.open('/c/orders-prod');
  const row = page.getByRole('region', { name: 'Members' }).getByRole('row', { name: /^pg3/ });
  await row.getByText('stale').waitFor();
  const text = await row.innerText();
  assert.match(text, /unknown/);
  assert.doesNotMatch(text, /\b0 B\b/);
});

test('blind to the DCS, the leader\'s last moment is counted down, and nobody is named as the next', fixtureOnly, async () => {
  const page = await world.page();
  await world.dev('scenario', { name: 'dcs-stale' });
  await page.open('/c/orders-prod');
  const alarm = page.getByRole('status').filter({ hasText: 'demote itself' });
  const left = async () => Number(/must demote itself within (\d+) s: the DCS has no quorum/.exec(await alarm.innerText())?.[1]);
  const first = await left();
  assert.ok(first > 0 && first <= 20, await alarm.innerText());
  await page.waitForFunction((n) => Number(/within (\d+) s/.exec(document.body.innerText)?.[1]) < n, first);
  assert.match(await page.getByRole('region', { name: 'If the leader failed now' }).innerText(), /Who would take over is unknown[\s\S]*the DCS has no quorum/);
});

test('who would take over, with what loss, and what stands in the way of the others', fixtureOnly, async () => {
  const page = await world.page();
  await page.open('/c/billing');
  assert.match(await page.getByRole('region', { name: 'If the leader failed now' }).innerText(), /pg3 would take over[\s\S]*would be lost[\s\S]*risky: its WAL receiver is waiting[\s\S]*pg2[\s\S]*may not: lags/);
  // Its open incident is one click away.
  const incident = page.getByRole('link', { name: /Open incident pg2 does not replicate/ });
  assert.match(await incident.innerText(), /A long query on pg2 holds up replay \(medium confidence\)/);
  // A clock that is off is said with its error.
  await page.getByRole('region', { name: 'Members' }).getByText('clock 3.2 s ahead ± 40 ms').waitFor();
  await page.open('/c/crm');
  const members = page.getByRole('region', { name: 'Members' });
  for (const mark of ['cascades from crm-b', 'delayed by 1h', 'nofailover']) await members.getByText(mark).waitFor();
  await page.getByText(/switchover from crm-a to crm-b was asked for, scheduled for/).waitFor();
  await page.open('/c/crm-dr');
  await page.getByText('standby cluster of 10.0.2.11:5432').waitFor();
  noProblems(page);
});

test('whom nobody reaches is told by name, in the table and in the details', fixtureOnly, async () => {
  const page = await world.page();
  await world.dev('scenario', { name: 'member-lost' });
  await page.open('/c/orders-prod');
  await page.getByRole('region', { name: 'Members' }).getByRole('row', { name: /^pg3/ }).getByText(/cannot be reached from: pg\d \(timeout\)/).waitFor();
  await page.locator('.node', { hasText: 'pg3' }).focus();
  assert.match(await page.getByRole('tooltip').innerText(), /PostgreSQL[\s\S]*cannot be reached from: pg\d \(timeout\)/);
});

test('a lost connection keeps the page, dimmed, with its age, and comes back by itself', fixtureOnly, async () => {
  const page = await world.page();
  await page.open('/');
  await world.dev('outage', { seconds: 5 });
  await page.getByText('Connection lost').waitFor();
  await page.getByText(/data is \d+ s old/).waitFor();
  assert.ok(await page.locator('main.lost').count(), 'old data is marked');
  assert.ok(await page.locator('[data-cluster-row]').count(), 'old data stays');
  await page.getByText('Connection lost').waitFor({ state: 'detached', timeout: 20_000 });
  assert.equal(await page.locator('main.lost').count(), 0);
});

test('nothing watched yet: three steps to copy, then the overview by itself', fixtureOnly, async () => {
  const page = await world.page();
  await world.dev('scenario', { name: 'empty' });
  await page.open('/');
  await page.getByRole('heading', { name: 'Watch your first cluster' }).waitFor();
  await page.getByRole('button', { name: 'Copy' }).first().click();
  await page.getByRole('button', { name: 'Copied' }).waitFor();
  await world.dev('scenario', { name: 'live' });
  await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
  noProblems(page);
});

test('a server with tokens asks for one, refuses a wrong one, and goes on with a right one', fixtureOnly, async () => {
  const page = await world.page();
  await world.dev('scenario', { name: 'token' });
  await page.goto(`${world.base}/`);
  const dialog = page.getByRole('dialog', { name: 'Sign in' });
  await dialog.getByLabel('Token').fill('wrong');
  await dialog.getByRole('button', { name: 'Sign in' }).click();
  await dialog.getByText('This token is not valid').waitFor();
  await dialog.getByLabel('Token').fill('fixture-token');
  await dialog.getByRole('button', { name: 'Sign in' }).click();
  await dialog.waitFor({ state: 'detached' });
  await page.getByRole('main').getByRole('link', { name: 'orders-prod', exact: true }).first().waitFor();
});

test('a silence previews what it mutes and marks the alert', fixtureOnly, async () => {
  const page = await world.page();
  await page.open('/alerts');
  await page.getByRole('button', { name: 'Silence DiskFillingUp' }).click();
  const dialog = page.getByRole('dialog', { name: 'New silence' });
  await dialog.getByText('Mutes 1 alert now').waitFor();
  await dialog.getByLabel('Your name').fill('dba');
  await dialog.getByLabel('Why').fill('disk is being grown');
  await dialog.getByRole('button', { name: 'Silence', exact: true }).click();
  await page.getByText('silenced').waitFor();
  noProblems(page);
});
