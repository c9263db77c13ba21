// The pictures of the README. They are taken only with SCREENSHOTS=1; the fixture's world makes them the same story each time.
import { after, before, test } from 'node:test';
import { fixtureOnly, picture, settled, start } from './harness.mjs';

const skip = process.env.SCREENSHOTS === '1' ? fixtureOnly : { skip: 'SCREENSHOTS is not set' };
let world;
before(async () => { if (!skip.skip) world = await start(); });
after(() => world?.stop());

test('pictures', skip, async () => {
  for (const theme of ['dark', 'light']) {
    const page = await world.page({ theme, width: 1440, height: 900 });
    const take = async (name, path) => {
      await page.open(path);
      await page.waitForTimeout(600);
      await picture(page, `${name}-${theme}`);
    };
    await take('cluster', '/c/orders-prod?from=now-30m');
    if (theme === 'dark') {
      await take('overview', '/');
      await take('logs', '/logs?cluster=orders-prod&from=now-30m');
      await take('alerts', '/alerts');
      await take('incident', '/incidents/41');
      await page.open('/logs?cluster=orders-prod&q=PANIC&from=now-30m');
      await page.locator('button.line').first().click();
      await page.getByRole('button', { name: 'All members at this time' }).click();
      await page.locator('.context [aria-current="true"]').waitFor();
      await settled(page);
      await picture(page, 'logs-context-dark');
      await world.dev('scenario', { name: 'splitbrain' });
      await take('split-brain', '/c/orders-prod?from=now-15m');
      await world.dev('scenario', { name: 'live' });
    }
  }
  const phone = await world.page({ width: 390, height: 844, theme: 'dark' });
  await phone.open('/c/orders-prod');
  await phone.waitForTimeout(600);
  await picture(phone, 'phone-dark');
});
