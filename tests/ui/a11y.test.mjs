// axe over every page in both themes and widths: nothing serious, nothing critical.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { axe, fixtureOnly, start } from './harness.mjs';

let world;
let cluster;
before(async () => {
  world = await start();
  const clusters = await world.clusters();
  cluster = encodeURIComponent((clusters.find((c) => c.name === 'orders-prod') ?? clusters[0]).name);
});
after(() => world.stop());
afterEach(async () => { if (world.fixture) await world.dev('scenario', { name: 'live' }); });

const paths = () => ['/', `/c/${cluster}`, `/c/${cluster}?view=table`, '/logs', '/alerts', '/alerts?tab=rules', '/alerts?tab=silences', '/alerts?tab=notifications', '/targets', '/incidents', '/explore', '/explore?expr=up', '/nowhere'];

for (const theme of ['dark', 'light']) {
  test(`every page, ${theme}`, async () => {
    const page = await world.page({ theme });
    for (const path of paths()) {
      await page.open(path);
      assert.deepEqual(await axe(page), [], `${path} in ${theme}`);
    }
  });

  test(`open things: a log row, the palette, keys, time menu, silence dialog, ${theme}`, async () => {
    const page = await world.page({ theme });
    await page.open('/logs');
    await page.locator('button.line').first().click();
    await page.getByRole('group', { name: 'Detail' }).waitFor();
    assert.deepEqual(await axe(page), [], 'log row');
    await page.keyboard.press('Control+k');
    await page.getByRole('combobox', { name: 'Search' }).waitFor();
    assert.deepEqual(await axe(page), [], 'palette');
    await page.keyboard.press('Escape');
    await page.open('/alerts?silence=new');
    await page.getByRole('dialog', { name: 'New silence' }).waitFor();
    assert.deepEqual(await axe(page), [], 'silence dialog');
    await page.open('/');
    await page.locator('#time-button').click();
    assert.deepEqual(await axe(page), [], 'time menu');
    await page.keyboard.press('Escape');
    await page.locator('#time-button').evaluate((b) => b.blur());
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keys' }).waitFor();
    assert.deepEqual(await axe(page), [], 'keys');
  });

  test(`states: first run, split brain, stale DCS, lost member, sign-in, ${theme}`, fixtureOnly, async () => {
    const page = await world.page({ theme });
    for (const [scenario, path] of [['empty', '/'], ['splitbrain', `/c/${cluster}`], ['dcs-stale', `/c/${cluster}`], ['member-lost', `/c/${cluster}`], ['token', '/']]) {
      await world.dev('scenario', { name: scenario });
      await (scenario === 'token' ? page.goto(world.base + path) : page.open(path));
      if (scenario === 'token') await page.getByRole('dialog', { name: 'Sign in' }).waitFor();
      assert.deepEqual(await axe(page), [], scenario);
    }
  });

  test(`a phone, ${theme}`, async () => {
    const page = await world.page({ theme, width: 390, height: 844 });
    for (const path of ['/', `/c/${cluster}`, '/logs', '/alerts', '/targets']) {
      await page.open(path);
      assert.deepEqual(await axe(page), [], `${path} in ${theme}`);
    }
  });
}
