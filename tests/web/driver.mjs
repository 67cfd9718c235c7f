// What every scenario shares: a browser, a login, and the rule that nothing may be complained of on its console.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [name, words] = process.argv.slice(2);
export const given = JSON.parse(words);
const require = createRequire(`${given.modules}/index.js`);
const { chromium } = require("playwright-core");
const { AxeBuilder } = require("@axe-core/playwright");

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
/** Asks the test beside the browser (restart the daemon, …) and waits for its answer. */
export async function ask(what, ...args) {
  process.stdout.write(`${JSON.stringify({ ask: what, with: args })}\n`);
  return JSON.parse((await lines.next()).value);
}

export function check(condition, message) {
  if (!condition) throw new Error(message);
}

export const PATIENCE = 60_000;
const complaints = [];
/** While the daemon is away, or a login is over, the browser itself logs each failed request; scenarios that do that say so. */
let expected = null;
export const expectFailures = (pattern) => (expected = pattern);

export async function open(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ignoreHTTPSErrors: true, ...options });
  context.setDefaultTimeout(PATIENCE);
  await context.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
  });
  const page = await context.newPage();
  watch(page);
  return page;
}

export function watch(page) {
  page.on("pageerror", (error) => complaints.push(`${page.url()}: ${error.stack}`));
  page.on("console", (message) => {
    if (!["error", "warning"].includes(message.type())) return;
    const text = `${message.text()} (${message.location().url})`;
    if (!(expected && expected.test(text))) complaints.push(`${page.url()}: ${text}`);
  });
}

export async function logIn(page, token = given.token, hash = "") {
  await page.goto(`${given.url}/ui/${hash}`);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.locator("#nav").waitFor({ state: "attached" });
  await page.locator("main h1").waitFor();
}

export const heading = (page, text) => page.getByRole("heading", { level: 1, name: text, exact: true }).waitFor();

/** What a screen reader's checker finds; rules of WCAG 2.2 A and AA and of good practice. */
const THEMES = ["dark", "light"];

/** In both themes, where it is not said which. */
export async function axe(page, where, themes = THEMES) {
  for (const colorScheme of themes) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" }); // in the middle of a transition contrasts are of neither
    const { violations } = await new AxeBuilder({ page }).analyze();
    const found = violations.map((one) => `${where}, ${colorScheme}: ${one.id}: ${one.help}\n    ${one.nodes.slice(0, 4).map((node) => `${node.target} ${node.failureSummary}`).join("\n    ")}`);
    check(!found.length, found.join("\n"));
  }
  await page.emulateMedia({ reducedMotion: null });
}

/** To be looked at. */
export const picture = (page, name) => (given.pictures ? page.screenshot({ path: `${given.pictures}/${name}.png` }) : undefined);

/** Calls of the API as the page makes them: with its cookie. */
export const api = (page, path) => page.evaluate(async (where) => (await fetch(where)).json(), path);

const OPTIONS = { executablePath: given.chromium, args: ["--no-sandbox", "--disable-dev-shm-usage"] };

/** A browser of its own with a profile in that folder, which is also what tools see that come by its debugging port. */
export async function launched(profile, args) {
  const context = await chromium.launchPersistentContext(profile, { ...OPTIONS, args: [...OPTIONS.args, ...args], viewport: { width: 1280, height: 900 }, ignoreHTTPSErrors: true });
  context.setDefaultTimeout(PATIENCE);
  return context;
}

export async function run(scenarios) {
  const browser = await chromium.launch(OPTIONS);
  try {
    const done = (await scenarios[name](browser)) ?? {};
    check(!complaints.length, `the console complains:\n${complaints.join("\n")}`);
    process.stdout.write(`${JSON.stringify({ done })}\n`);
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ failed: String(error.message), complaints })}\n`);
    process.stderr.write(`${error.stack}\n`);
    process.exitCode = 1;
  }
  await browser.close();
  process.exit();
}
