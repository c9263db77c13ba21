// A failover and a lost quorum as somebody sees them who opened the page once: on a real lab, with real faults.
//
// DARAJI_LAB    name of the running lab; its server is at DARAJI_URL. Without it nothing here runs.
// SCREENSHOTS=1 also takes the pictures of the README on the way.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, afterEach, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { noProblems, picture, REAL, settled, start } from './harness.mjs';

const LAB = process.env.DARAJI_LAB ?? '';
const onLab = { skip: LAB && REAL ? false : 'needs DARAJI_LAB and DARAJI_URL' };
const FAULT_MS = 120_000;
/** From an event's time to the page: the stream pushes it, so this is transport and drawing on a busy machine. */
const SHOWN_MS = 3000;

const run = promisify(execFile);
const lab = (...words) => run(fileURLToPath(new URL('../lab/lab', import.meta.url)), words, { timeout: 240_000 });

let world;
before(async () => { if (!onLab.skip) world = await start(); });
after(() => world?.stop());
// One fault at a time, also when its test failed.
afterEach(async () => { if (!onLab.skip) await lab('heal', LAB); });

const cluster = async () => (await world.clusters()).find((c) => c.name === LAB);
const node = (page, member) => page.locator('.node', { has: page.getByText(member, { exact: true }) });
const region = (page, name) => page.getByRole('region', { name });
const inDocument = (page, found) => page.waitForFunction(found, undefined, { timeout: FAULT_MS, polling: 100 });
const healthy = (page) => page.locator('.page-head').getByText('healthy', { exact: true }).waitFor({ timeout: FAULT_MS });

/** Opens the cluster's page for good: it keeps when each thing was first on it, and whoever was shown with the leader lock. */
async function watch() {
  const page = await world.page({ height: 1400 });
  await page.open(`/c/${encodeURIComponent(LAB)}?from=now-10m`);
  await healthy(page);
  await page.evaluate(() => {
    window.notReloaded = true;
    window.firstSeen = {};
    window.locks = [];
    const look = () => {
      const now = Date.now();
      for (const e of document.querySelectorAll('[data-event]')) window.firstSeen[e.dataset.event] ??= now;
      if (document.querySelector('[role="alert"]')?.textContent.includes('Split brain confirmed')) window.alarmAt ??= now;
      const owner = [...document.querySelectorAll('.node')].find((n) => n.textContent.includes('leader lock'))?.querySelector('strong').textContent ?? null;
      if (window.locks.at(-1)?.owner !== owner) window.locks.push({ at: now, owner });
    };
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
    look();
  });
  return page;
}

async function stillTheSame(page) {
  assert.equal(await page.evaluate(() => window.notReloaded), true, 'the page was reloaded');
  noProblems(page);
}

/** The newest event of that name since a time, and its line on the page. */
async function toldEvent(page, since, name) {
  const query = new URLSearchParams({ cluster: LAB, since: new Date(since).toISOString() });
  const events = await (await fetch(`${world.base}/api/daraji/v1/events?${query}`)).json();
  const event = events.find((e) => e.event === name);
  assert.ok(event, `the server told no ${name}`);
  const row = region(page, 'Events').locator(`[data-event="${event.id}"]`);
  await row.waitFor();
  return { event, row };
}

test('kill-patroni: the lost leader, the new one and the split brain come onto the open page', onLab, async () => {
  const page = await watch();
  const old = (await cluster()).leader;
  await node(page, old).getByText('leader lock').waitFor();
  const since = Date.now();
  await lab('fault', LAB, 'kill-patroni', '--member', old);

  const alarm = page.getByRole('alert');
  await alarm.getByText('Split brain confirmed').waitFor({ timeout: FAULT_MS });
  const leader = (await cluster()).leader;
  assert.notEqual(leader, old);
  assert.match(await alarm.innerText(), new RegExp(`${[old, leader].sort().join(' and ')} accept writes`));

  const lost = await toldEvent(page, since, 'leader_lost');
  const changed = await toldEvent(page, since, 'leader_changed');
  const split = await toldEvent(page, since, 'split_brain_confirmed');
  assert.match(await lost.row.innerText(), new RegExp(`leader lost[\\s\\S]*${old}`));
  assert.match(await changed.row.innerText(), /unplanned/);
  const locks = await page.evaluate(() => window.locks);
  const tookOver = locks.find((l) => l.at >= since && l.owner === leader);
  assert.ok(tookOver, `the page never gave ${leader} the lock: ${JSON.stringify(locks)}`);
  assert.ok(locks.every((l) => [old, leader, null].includes(l.owner)), `a wrong leader was shown: ${JSON.stringify(locks)}`);
  for (const [what, shown, told] of [
    ['the new leader', tookOver.at, changed.event.time],
    ['the split brain', await page.evaluate(() => window.alarmAt), split.event.time],
    ['the line of the lost leader', await page.evaluate((id) => window.firstSeen[id], lost.event.id), lost.event.time],
  ]) assert.ok(shown - Date.parse(told) < SHOWN_MS, `${what} came onto the page ${shown - Date.parse(told)} ms after it was told`);

  // Each says what it is in words, and who says so.
  await node(page, leader).getByText('leader lock').waitFor();
  await node(page, old).getByText('without lock').waitFor();
  await node(page, old).getByText('accepts writes').waitFor();
  await region(page, 'Leadership').getByText(/accepted writes at the same time since/).waitFor();
  await node(page, old).focus();
  const card = page.getByRole('tooltip');
  await card.getByText('refused').first().waitFor();
  assert.match(await card.innerText(), /Patroni REST[\s\S]*refused[\s\S]*ago[\s\S]*PostgreSQL[\s\S]*writable[\s\S]*DCS keys[\s\S]*not in the DCS/);
  await page.keyboard.press('Escape');
  await stillTheSame(page);

  await pictures(page);
  await lab('heal', LAB);
  await healthy(page);
  await alarm.waitFor({ state: 'detached' });
  await stillTheSame(page);
  await page.context().close();
});

test('etcd-quorum-loss: DCS facts are stale with their age, and nobody is shown as the leader', onLab, async () => {
  const page = await watch();
  const holder = (await cluster()).leader;
  await lab('fault', LAB, 'etcd-quorum-loss');

  const dcs = region(page, 'DCS');
  await dcs.getByText(/^stale, .* old$/).waitFor({ timeout: FAULT_MS }).catch(async (error) => {
    assert.fail(`${error.message}\non the page: ${await dcs.innerText()}\nat the server: ${JSON.stringify((await cluster()).dcs)}\nproblems: ${page.problems.join('; ')}`);
  });
  const staleAt = await page.evaluate(() => Date.now());
  await dcs.getByText('Last owner').waitFor();
  assert.match(await dcs.innerText(), new RegExp(`Last owner\\s+${holder}`));
  const age = async () => Number(/stale, (\d+) s old/.exec(await dcs.innerText())?.[1]);
  const first = await age();
  await page.waitForFunction((n) => Number(/stale, (\d+) s old/.exec(document.body.innerText)?.[1]) >= n + 5, first, { timeout: 15_000 });

  // The leader finds nobody to renew its lease with and steps down; the page says so although it cannot see the lock.
  await inDocument(page, () => document.querySelector('.node') && ![...document.querySelectorAll('.node')].some((n) => n.textContent.includes('accepts writes')));
  const locks = await page.evaluate(() => window.locks);
  assert.deepEqual(locks.filter((l) => l.at > staleAt + 200 && l.owner !== null), [], 'a stale lock was shown as current');
  assert.deepEqual(locks.filter((l) => l.owner !== null && l.owner !== holder), [], 'a wrong leader was shown');
  assert.equal(await page.getByText('leader lock').count(), 0);

  const overview = await world.page();
  await overview.open('/');
  await overview.getByText('leader unknown, DCS facts are stale').waitFor();
  await overview.context().close();
  await stillTheSame(page);

  await take('quorum-lost', `/c/${encodeURIComponent(LAB)}?from=now-5m`);
  await lab('heal', LAB);
  await healthy(page);
  await dcs.getByText('Lock owner').waitFor();
  await stillTheSame(page);
  await page.context().close();
});

// --- Pictures ---

const LOOKS = ['dark', 'light'].flatMap((theme) => [{ theme, width: 1280, height: 860, suffix: theme }, { theme, width: 390, height: 844, suffix: `phone-${theme}` }]);

async function take(name, path, prepare = null) {
  if (process.env.SCREENSHOTS !== '1') return;
  for (const { suffix, ...look } of LOOKS) {
    const page = await world.page(look);
    await page.open(path);
    await prepare?.(page);
    await page.evaluate(() => document.fonts.ready);
    await picture(page, `${name}-${suffix}`);
    await page.context().close();
  }
}

/** Every page in the middle of the split brain. */
async function pictures(watched) {
  const scope = `cluster=${encodeURIComponent(LAB)}`;
  if (process.env.SCREENSHOTS !== '1') return;
  // Usually both sides have written within seconds; an old primary that nothing writes to any more may stay without.
  await watched.getByRole('alert').getByText('their histories differ').waitFor({ timeout: 30_000 }).catch(() => undefined);
  await take('split-brain', `/c/${encodeURIComponent(LAB)}?from=now-5m`);
  await take('overview', '/?from=now-5m');
  await take('alerts', '/alerts');
  await take('targets', '/targets');
  await take('logs', `/logs?${scope}&from=now-5m&f=event!%3Dhb_leader&f=event!%3Dhb_replica`);
  await take('context', `/logs?${scope}&from=now-5m&q=promote`, async (page) => {
    await page.locator('button.line').first().click();
    await page.getByRole('button', { name: 'All members at this time' }).click();
    await page.locator('.context [aria-current="true"]').waitFor();
    await settled(page);
  });
  const incidents = await (await fetch(`${world.base}/api/daraji/v1/incidents`)).json();
  await take('incident', `/incidents/${encodeURIComponent(incidents.find((i) => i.cluster === LAB).id)}`);
}
