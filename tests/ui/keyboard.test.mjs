// Everything without a pointer.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { focused, noProblems, settled, start } from './harness.mjs';

let world;
before(async () => { world = await start(); });
after(() => world.stop());

test('skip link, navigation keys, list keys, search, help, palette', async () => {
  const page = await world.page();
  await page.open('/');
  await page.keyboard.press('Tab');
  assert.equal((await focused(page)).name, 'Skip to content');

  await page.keyboard.press('j');
  const row = await focused(page);
  assert.equal(row.tag, 'A', 'j focuses the first cluster');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: row.name }).waitFor();

  for (const [key, heading] of [['l', 'Logs'], ['a', 'Alerts'], ['t', 'Targets'], ['i', 'Incidents'], ['m', 'Metrics'], ['o', 'Overview']]) {
    await page.keyboard.press('g');
    await page.keyboard.press(key);
    await page.getByRole('heading', { level: 1, name: heading }).waitFor({ state: 'attached' });
  }

  await page.keyboard.press('/');
  assert.match((await focused(page)).name, /^Filter clusters/);
  await page.keyboard.press('Escape');
  assert.equal((await focused(page)).tag, 'BODY', 'Escape leaves the field');

  await page.keyboard.press('?');
  await page.getByRole('dialog', { name: 'Keys' }).waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('dialog', { name: 'Keys' }).waitFor({ state: 'detached' });

  await page.keyboard.press('g');
  await page.keyboard.press('c');
  await page.getByRole('combobox', { name: 'Search' }).waitFor();
  await page.keyboard.type('last 3h');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => new URLSearchParams(location.search).get('from') === 'now-3h');
  noProblems(page);
});

test('logs by keyboard: search, step through rows, open, filter by a field, close', async () => {
  const page = await world.page();
  await page.open('/logs');
  await page.keyboard.press('/');
  await page.keyboard.type('a');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => new URLSearchParams(location.search).get('q') === 'a');
  await settled(page);
  await page.keyboard.press('Escape');
  await page.keyboard.press('j');
  await page.keyboard.press('j');
  await page.keyboard.press('k');
  assert.match((await focused(page)).id, /^row-/);
  await page.keyboard.press('Enter');
  await page.getByRole('group', { name: 'Detail' }).waitFor();
  for (let i = 0; i < 12 && !/^Include /.test((await focused(page)).name); i += 1) await page.keyboard.press('Tab');
  assert.match((await focused(page)).name, /^Include /);
  await page.keyboard.press('Escape');
  await page.getByRole('group', { name: 'Detail' }).waitFor({ state: 'detached' });
  noProblems(page);
});

test('time and view keys', async () => {
  const page = await world.page();
  await page.open('/alerts');
  await page.keyboard.press('t');
  assert.equal((await focused(page)).id, 'time-typed');
  await page.keyboard.type('30m');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => new URLSearchParams(location.search).get('from') === 'now-30m');
  await page.locator('#time-button').evaluate((b) => b.blur());
  await page.keyboard.press('[');
  await page.waitForFunction(() => new URLSearchParams(location.search).has('to'));
  await page.keyboard.press('z');
  await page.getByRole('button', { name: 'Time zone: UTC' }).waitFor();
  await page.keyboard.press('d');
  await page.keyboard.press('d');
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'light');
  await page.reload();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'light', 'the theme is remembered');
  noProblems(page);
});

test('focus is always visible on the way through a page', async () => {
  const page = await world.page();
  await page.open('/');
  for (let i = 0; i < 40; i += 1) {
    await page.keyboard.press('Tab');
    const hidden = await page.evaluate(() => {
      const e = document.activeElement;
      if (!e || e === document.body) return null;
      const style = getComputedStyle(e);
      const box = e.getBoundingClientRect();
      const ring = style.outlineStyle !== 'none' || getComputedStyle(e.parentElement).outlineStyle !== 'none';
      return ring && box.width > 0 && box.height > 0 ? null : `${e.tagName}.${e.className}`;
    });
    assert.equal(hidden, null, `no visible focus on ${hidden}`);
  }
});
