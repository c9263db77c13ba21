// The page of an incident in each of its states, and what people do there. The fixture has one of each kind.
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { axe, fixtureOnly, focused, noProblems, noSidewaysScroll, settled, start } from './harness.mjs';

let world;
before(async () => { world = await start(); });
after(() => world.stop());
beforeEach(async () => { if (world.fixture) await world.dev('scenario', { name: 'live' }); });

const incidents = async () => (await fetch(`${world.base}/api/daraji/v1/incidents`)).json();
const path = (id) => `/incidents/${encodeURIComponent(id)}`;
const region = (page, name) => page.getByRole('region', { name, exact: true });
/** The failover of the fixture's past: settled, with its cause proven. */
const explained = async () => (await incidents()).find((i) => i.causes[0]?.name === 'disk_full_wal');

test('a settled incident tells verdict, cost, steps, lanes, series and story', fixtureOnly, async () => {
  const page = await world.page();
  const i = await explained();
  await page.open(path(i.id));
  await page.getByRole('heading', { level: 1, name: i.title }).waitFor();
  const cause = region(page, 'Cause');
  assert.match(await cause.innerText(), /The disk of pg_wal on pg1 was full[\s\S]*high confidence[\s\S]*What to do[\s\S]*Make room on pg1[\s\S]*Why[\s\S]*writing WAL failed for want of space[\s\S]*PANIC[\s\S]*Looked for and not there[\s\S]*the archiver counts failures/);
  // Others are there, and folded.
  const other = cause.locator('details', { hasText: 'was cut off from the DCS' });
  assert.equal(await other.getByText('Against it').isVisible(), false);
  await other.locator('summary').click();
  await other.getByText('Against it').waitFor();

  const cost = await page.locator('dl[aria-label="Impact"]').innerText();
  assert.match(cost, /Writes were out\s+25 s\s+± 400 ms[\s\S]*Clients were out\s+26 s[\s\S]*Lost WAL\s+at least 80 KiB\s+0\/5B000148 to 0\/5B014148[\s\S]*Split brain\s+none seen/);
  assert.match(await region(page, 'Phases').innerText(), /first sign[\s\S]*lease expired[\s\S]*key taken[\s\S]*\+22 s[\s\S]*promoted[\s\S]*first write[\s\S]*all replicas stream/);
  const lane = (member) => region(page, 'Leadership').getByRole('img', { name: new RegExp(`^${member}:`) }).getAttribute('aria-label');
  assert.match(await lane('pg1'), /primary from[\s\S]*took writes from[\s\S]*held the leader key from/);
  assert.match(await lane('pg2'), /replica from[\s\S]*primary from[\s\S]*took writes from[\s\S]*held the leader key from/);
  for (const title of ['Fullest filesystem', 'WAL written', 'Transactions', 'Replication lag']) await page.getByRole('img', { name: new RegExp(`^${title}:`) }).waitFor();

  const story = region(page, 'Timeline');
  const told = await story.innerText();
  assert.match(told, /PostgreSQL down[\s\S]*PANIC[\s\S]*proves: writing WAL failed[\s\S]*leader lost[\s\S]*lease expired[\s\S]*proves: the lease ran out[\s\S]*leader changed[\s\S]*unplanned[\s\S]*failover[\s\S]*TL 6 → 7/);
  await page.keyboard.press('j');
  await page.keyboard.press('j');
  assert.equal((await focused(page)).name, 'Logs around leader lost');
  const folded = story.locator('details').first();
  assert.equal(await folded.getAttribute('open'), null);
  await story.getByRole('button', { name: 'All log lines' }).click();
  await page.waitForFunction(() => [...document.querySelectorAll('.story details')].every((d) => d.open));

  assert.match(await region(page, 'Messages sent').innerText(), /opening to dba-mail[\s\S]*delivered[\s\S]*closing to dba-mail/);
  await noSidewaysScroll(page);
  noProblems(page);
});

test('proofs lead to the lines and the series, at that time', fixtureOnly, async () => {
  const page = await world.page();
  const i = await explained();
  await page.open(path(i.id));
  const proofs = region(page, 'Cause').getByRole('link', { name: /^Open in/ });
  assert.match(await proofs.nth(1).getAttribute('href'), /^\/explore\?expr=node_filesystem_avail_bytes/);
  await proofs.first().click();
  await page.getByRole('heading', { level: 1, name: 'Logs' }).waitFor();
  await page.locator('button.line', { hasText: 'No space left on device' }).first().waitFor();
  const params = new URL(page.url()).searchParams;
  assert.equal(params.get('member'), 'pg1');
  assert.ok(Date.parse(params.get('from')) < Date.parse(i.opened_at) && Date.parse(params.get('to')) > Date.parse(i.opened_at));
  await page.goBack();
  await page.getByRole('heading', { level: 1, name: i.title }).waitFor();
  noProblems(page);
});

test('the page has the time of the incident; a drag looks closer, and back', fixtureOnly, async () => {
  const page = await world.page();
  const i = await explained();
  await page.open(`/?from=now-6h`);
  await page.open('/incidents?from=now-6h');
  await page.locator(`[data-incident][href="${path(i.id)}"]`).click();
  await page.getByRole('heading', { level: 1, name: i.title }).waitFor();
  assert.equal(new URL(page.url()).search, '', 'the range of another page must not hide the incident');
  const label = page.locator('#time-button');
  const whole = await label.innerText();
  assert.match(whole, /\d\d:\d\d:\d\d – /);
  const back = page.getByRole('button', { name: 'Whole' });
  assert.equal(await back.isDisabled(), true);

  // One crosshair: over a chart, every other chart and the lanes show the same instant.
  await settled(page);
  const chart = page.getByRole('img', { name: /^Transactions:/ });
  await chart.scrollIntoViewIfNeeded();
  const box = await chart.boundingBox();
  await page.mouse.move(box.x + box.width * 0.6, box.y + 50);
  await region(page, 'Leadership').locator('.cursor').waitFor({ state: 'attached' });
  await page.waitForFunction(() => document.querySelectorAll('figcaption .at').length >= 4);
  assert.equal(new Set(await page.locator('figcaption .at').evaluateAll((l) => l.map((e) => e.textContent.split('◆')[0].trim()))).size, 1);

  // A mark leads to its event.
  const mark = region(page, 'Leadership').locator('.event').last();
  await mark.scrollIntoViewIfNeeded();
  const event = page.locator('.story [data-event]').last();
  const inView = () => event.evaluate((e) => { const { top, bottom } = e.getBoundingClientRect(); return top >= 0 && bottom <= innerHeight; });
  assert.equal(await inView(), false);
  await mark.click();
  assert.equal(await inView(), true);

  await chart.scrollIntoViewIfNeeded();
  Object.assign(box, await chart.boundingBox());
  await page.mouse.move(box.x + box.width * 0.6, box.y + 50);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.9, box.y + 50, { steps: 6 });
  await page.mouse.up();
  await page.waitForFunction(() => new URLSearchParams(location.search).has('from'));
  assert.notEqual(await label.innerText(), whole);
  await back.click();
  await page.waitForFunction((text) => document.querySelector('#time-button').innerText === text, whole);
  noProblems(page);
});

test('without a cause the page says what is missing', fixtureOnly, async () => {
  const page = await world.page();
  await page.open(path('audit-contact'));
  const text = await region(page, 'No cause is proven').innerText();
  assert.match(text, /Not enough evidence for any known cause[\s\S]*no event of Daraji[\s\S]*no log of kernel from au1, au2[\s\S]*which sources answer/);
  assert.doesNotMatch(text, /no rule/i);
  assert.match(await page.locator('dl[aria-label="Impact"]').innerText(), /not measured[\s\S]*not measured[\s\S]*none seen\s+au1 and au2 cannot be seen/);
  assert.match(await region(page, 'Messages sent').innerText(), /The alert TargetMissing is told by itself/);
  assert.deepEqual(await region(page, 'Phases').locator('li').count(), 2, 'nothing happened to the leader: no steps of a failover are due');

  // A guess is told as one, and steps that nobody saw are drawn so.
  await page.open(path('orders-prod-unseen'));
  assert.match(await region(page, 'No cause is proven').innerText(), /A possible cause[\s\S]*low confidence[\s\S]*Could not be seen[\s\S]*its kernel wrote nothing more/);
  assert.match(await region(page, 'Phases').innerText(), /key lost\s+not seen[\s\S]*promoted\s+not seen[\s\S]*first write\s+not seen/);
  noProblems(page);
});

test('a split brain goes on, and the page counts', fixtureOnly, async () => {
  const page = await world.page();
  await world.dev('scenario', { name: 'splitbrain' });
  await page.open(path('orders-prod-split'));
  const cost = page.locator('dl[aria-label="Impact"]');
  const seconds = async () => Number(/still going on\s+pg1 and pg2, for (?:(\d+)m )?(\d+)/.exec(await cost.innerText())?.slice(1).reduce((sum, n) => sum * 60 + Number(n ?? 0), 0));
  const first = await seconds();
  assert.ok(first > 0);
  await page.waitForFunction((n) => { const m = /for (?:(\d+)m )?(\d+)/.exec(document.querySelector('dl[aria-label="Impact"]').innerText); return Number(m[1] ?? 0) * 60 + Number(m[2]) > n; }, first);
  assert.match(await region(page, 'Phases').innerText(), /promoted\s+\+\d+ ms[\s\S]*first write\s+not yet[\s\S]*all replicas stream\s+not yet/);
});

test('acknowledging asks the server, which says who and when; it can be taken back', fixtureOnly, async () => {
  const page = await world.page();
  await page.open(path('billing-replica'));
  await page.getByText('came back once').waitFor();
  await region(page, 'Phases').getByText('The first time').waitFor();
  await page.keyboard.press('a');
  const dialog = page.getByRole('dialog', { name: 'Acknowledge' });
  await dialog.waitFor();
  await page.keyboard.type('the report is being stopped');
  await page.keyboard.press('Control+Enter');
  await dialog.waitFor({ state: 'detached' });
  await page.getByText(/Acknowledged by local at \d\d:/).waitFor();
  await region(page, 'Notes').getByText('the report is being stopped').waitFor();
  assert.equal((await incidents()).find((i) => i.id === 'billing-replica').state, 'acknowledged');
  assert.equal(await page.getByRole('button', { name: 'Acknowledge' }).count(), 0);

  await page.open('/incidents');
  await region(page, 'Acknowledged').getByText('by local').waitFor();
  await page.goBack();
  await page.getByRole('button', { name: 'Take back' }).click();
  await page.getByRole('button', { name: 'Acknowledge' }).waitFor();
  assert.equal((await incidents()).find((i) => i.id === 'billing-replica').state, 'open');
  noProblems(page);
});

test('notes by keyboard; they stay, and what the server refuses is said', fixtureOnly, async () => {
  const page = await world.page();
  await page.open(path('audit-contact'));
  await page.keyboard.press('n');
  assert.equal((await focused(page)).name, 'New note');
  await page.keyboard.type('The site has no power.');
  await page.keyboard.press('Control+Enter');
  const notes = region(page, 'Notes');
  await notes.getByRole('listitem').filter({ hasText: 'The site has no power.' }).waitFor();
  assert.equal(await notes.getByLabel('New note').inputValue(), '');
  await notes.getByLabel('New note').fill('ä'.repeat(2049));
  await notes.getByText('4098 of at most 4096 bytes').waitFor();
  assert.equal(await notes.getByRole('button', { name: /Add note/ }).isDisabled(), true);
  await page.reload();
  await notes.getByText('The site has no power.').waitFor();
  noProblems(page);
});

test('who may only look is told so', fixtureOnly, async () => {
  const page = await world.page();
  await world.dev('scenario', { name: 'viewer' });
  await page.open(path('audit-contact'));
  await page.getByText("Your token's role is viewer: this needs operator or admin.").first().waitFor();
  assert.equal(await page.getByRole('button', { name: 'Acknowledge' }).isDisabled(), true);
  assert.equal(await page.getByLabel('New note').count(), 0);
});

test('log patterns: new, vanished, changed, with the way to their lines', fixtureOnly, async () => {
  const page = await world.page();
  const i = await explained();
  await page.open(path(i.id));
  const panel = region(page, 'Log patterns');
  await panel.getByRole('tab', { name: /New 3/ }).waitFor();
  assert.match(await panel.innerText(), /pg1 · postgresql[\s\S]*No space left on device[\s\S]*0 → 4[\s\S]*Nothing was there before of proxy1 · haproxy/);
  await panel.getByRole('tab', { name: /Vanished 1/ }).click();
  await panel.getByText('no action. I am (pg1), the leader with the lock').waitFor();
  await panel.getByText(/^silent since \d\d:/).waitFor();
  await panel.getByRole('tab', { name: /Changed 1/ }).click();
  assert.match(await panel.innerText(), /per min/);
  await panel.getByRole('link', { name: /^Lines of this pattern/ }).first().click();
  await page.waitForURL(/\/logs\?/);
  assert.match(new URL(page.url()).searchParams.get('q'), /^\{cluster="orders-prod",member="pg2",source="etcd"\} \|> /);
  await page.open(path('crm-archive'));
  await panel.getByText(/Only part was compared: stopped after 2 s/).waitFor();
  await panel.getByText('No kind of line came that had not come in the hour before.').waitFor();
});

test('a failover happens on the open page: nothing is reloaded, nothing jumps', fixtureOnly, async () => {
  const page = await world.page();
  await page.open('/incidents');
  const known = new Set((await incidents()).map((i) => i.id));
  await world.dev('failover', { gap: 6 });
  const fresh = (await incidents()).find((i) => !known.has(i.id));
  await page.locator(`[data-incident][href="${path(fresh.id)}"]`).click();
  await page.getByRole('heading', { level: 1 }).waitFor();
  await page.evaluate(() => { window.notReloaded = true; });
  const phases = region(page, 'Phases');
  await phases.getByText('not yet').first().waitFor();
  await page.locator('dl[aria-label="Impact"]').getByText('still going on').waitFor();
  const places = () => page.evaluate(() => ['Phases', 'Leadership'].map((n) => document.querySelector(`section[aria-label="${n}"]`).getBoundingClientRect().top + scrollY));
  const before = await places();
  await page.waitForFunction(() => /key taken\s+\+/.test(document.querySelector('section[aria-label="Phases"]').innerText), undefined, { timeout: 15_000 });
  await page.waitForFunction(() => /all replicas stream\s+\+/.test(document.querySelector('section[aria-label="Phases"]').innerText), undefined, { timeout: 15_000 });
  assert.deepEqual((await places()).map((y, n) => Math.abs(y - before[n]) <= 1), [true, true], `jumped from ${before} to ${await places()}`);
  await page.getByRole('heading', { level: 1, name: /took over/ }).waitFor();
  await region(page, 'Timeline').getByText('leader changed').waitFor();
  assert.equal(await page.evaluate(() => window.notReloaded), true);
  noProblems(page);
});

test('it can be handed round, and says when there is no such incident', fixtureOnly, async () => {
  const page = await world.page();
  const i = await explained();
  await page.open(path(i.id));
  const [popup] = await Promise.all([page.context().waitForEvent('page'), page.getByRole('link', { name: 'Report' }).click()]);
  await popup.getByRole('heading', { name: i.title }).waitFor();
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: 'JSON' }).click()]);
  assert.equal(download.suggestedFilename(), `incident-${i.id}.json`);
  await region(page, 'Similar before').getByRole('link').first().click();
  await page.getByRole('heading', { level: 1, name: 'pg3 took over from pg1' }).waitFor();
  await page.open('/incidents/none');
  await page.getByText('no incident with this id').waitFor();
});

test('the list: open, acknowledged, settled, and quietly what was planned', fixtureOnly, async () => {
  const page = await world.page();
  await page.open('/incidents');
  const headings = await page.locator('main h2').allInnerTexts();
  assert.deepEqual(headings, ['Open', 'Acknowledged', 'Settled', 'Planned changes']);
  assert.match(await region(page, 'Open').innerText(), /no source of audit has answered[\s\S]*Not enough evidence/);
  assert.match(await region(page, 'Acknowledged').innerText(), /archive_command fails on crm-a \(high confidence\)[\s\S]*by anna/);
  assert.match(await region(page, 'Settled').innerText(), /no cause is proven; perhaps: pg1 was powered off/);
  assert.match(await region(page, 'Planned changes').innerText(), /crm-a is the leader, as requested/);
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await region(page, 'Phases').waitFor();
  noProblems(page);
});

for (const theme of ['dark', 'light']) {
  test(`each kind is accessible and fits, ${theme}`, fixtureOnly, async () => {
    await world.dev('scenario', { name: 'splitbrain' });
    const ids = (await incidents()).map((i) => i.id);
    for (const [width, height] of [[1280, 860], [390, 844]]) {
      const page = await world.page({ theme, width, height });
      for (const id of ids) {
        await page.open(path(id));
        assert.deepEqual(await axe(page), [], `${id} in ${theme} at ${width}`);
        await noSidewaysScroll(page);
      }
      await page.open('/incidents');
      assert.deepEqual(await axe(page), [], `list in ${theme} at ${width}`);
      await noSidewaysScroll(page);
      await page.context().close();
    }
  });
}
