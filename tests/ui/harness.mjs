// What every browser test needs: a server, a browser, a page that reports its own errors, and axe.
//
// DARAJI_URL    run against this server; without it a fixture server of our own is started. Tests of states that only the
//               fixture can produce are then skipped.
// DARAJI_TOKEN  sign in with this token first.
// CHROMIUM      path of the browser, when it is not in the PATH.
// SCREENSHOTS=1 write docs/images/*.png (live.test.mjs).
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startFixture } from '../../ui/dev/fixture-server.mjs';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const require = createRequire(join(ROOT, 'ui', 'package.json'));
const { chromium } = require('playwright-core');
const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const PROGRAMS = ['chromium', 'chromium-browser', 'google-chrome'];
const BROWSERS = [process.env.CHROMIUM, ...(process.env.PATH ?? '').split(':').concat('/usr/bin').flatMap((folder) => PROGRAMS.map((program) => join(folder, program)))];

export const REAL = process.env.DARAJI_URL ?? null;
export const fixtureOnly = { skip: REAL ? 'needs the fixture server' : false };

/** Starts server and browser for one test file. */
export async function start() {
  const executablePath = BROWSERS.find((path) => path && existsSync(path));
  assert.ok(executablePath, 'no browser found: install chromium or set CHROMIUM to its path');
  const fixture = REAL ? null : await startFixture();
  const base = (REAL ?? fixture.url).replace(/\/$/, '');
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'] });
  return {
    base,
    fixture,
    /** A page whose console errors and exceptions are collected in `page.problems`. */
    async page({ width = 1280, height = 860, theme = 'dark' } = {}) {
      const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, timezoneId: 'UTC', reducedMotion: 'reduce' });
      if (process.env.DARAJI_TOKEN) await context.request.post(`${base}/api/daraji/v1/session`, { data: { token: process.env.DARAJI_TOKEN } });
      const page = await context.newPage();
      page.setDefaultTimeout(10_000);
      page.problems = [];
      page.on('console', (m) => m.type() === 'error' && page.problems.push(m.text()));
      page.on('pageerror', (e) => page.problems.push(`${e.message}\n${e.stack}`));
      page.open = async (path) => {
        await page.goto(base + path);
        await settled(page);
      };
      return page;
    },
    async dev(path, body = {}) {
      const answer = await fetch(`${base}/dev/${path}`, { method: 'POST', body: JSON.stringify(body) });
      assert.equal(answer.status, 200);
    },
    async clusters() {
      const headers = process.env.DARAJI_TOKEN ? { authorization: `Bearer ${process.env.DARAJI_TOKEN}` } : {};
      return (await fetch(`${base}/api/daraji/v1/clusters`, { headers })).json();
    },
    async stop() {
      await browser.close();
      await fixture?.close();
    },
  };
}

/** Waits until nothing on the page is a placeholder for data any more. */
export async function settled(page) {
  await page.waitForSelector('main');
  await page.waitForFunction(() => !document.querySelector('[aria-label="loading"]'), undefined, { timeout: 15_000 });
}

export function noProblems(page) {
  assert.deepEqual(page.problems, [], 'console errors on the page');
}

export async function noSidewaysScroll(page) {
  const extra = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(extra <= 0, `the page is ${extra} px wider than the window`);
}

/** Serious and critical findings of axe, as short texts. */
export async function axe(page) {
  await page.evaluate(AXE);
  const result = await page.evaluate(() => window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
  return result.violations.filter((v) => v.impact === 'serious' || v.impact === 'critical').map((v) => `${v.id}: ${v.nodes.slice(0, 4).map((n) => `${n.target.join(' ')} (${n.failureSummary.split('\n')[1]?.trim()})`).join(' | ')}`);
}

export async function picture(page, name, options = {}) {
  if (process.env.SCREENSHOTS !== '1') return;
  const folder = join(ROOT, 'docs', 'images');
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`), ...options });
}

/** Text of the focused element's accessible name, good enough for assertions. */
export const focused = (page) => page.evaluate(() => {
  const e = document.activeElement;
  return { tag: e.tagName, id: e.id, name: e.getAttribute('aria-label') ?? e.textContent.trim().slice(0, 60) };
});
