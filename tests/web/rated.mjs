// What others rate the dashboard by: Lighthouse on the screens that are looked at most, what the first view weighs, and when it can be used.
import { readFileSync } from "node:fs";
import { api, check, given, heading, launched, logIn, PATIENCE, run } from "./driver.mjs";

const CATEGORIES = ["accessibility", "best-practices"];

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** The audits that cost points in a category, so that a failure says what to mend. */
function lost({ categories, audits }, category) {
  return categories[category].auditRefs
    .filter(({ id, weight }) => weight > 0 && audits[id].score !== null && audits[id].score < 1)
    .map(({ id }) => `${id} ${audits[id].score}: ${audits[id].title} ${audits[id].displayValue ?? ""} ${JSON.stringify(audits[id].details?.items?.slice(0, 3) ?? "").slice(0, 900)}`);
}

const FIGURES = ["first-contentful-paint", "speed-index", "largest-contentful-paint", "total-blocking-time", "cumulative-layout-shift"];
const TRIES = 4;

/** On a busy machine its own recording fails at times (NO_NAVSTART and the like): that is no finding, and it is asked again. */
async function rating(rate, name, address, options) {
  for (let i = 1; ; i++) {
    const { lhr } = await rate(address, options);
    if (!lhr.runtimeError) return lhr;
    check(i < TRIES, `${name}: ${lhr.runtimeError.message}`);
  }
}

/**
 * Lighthouse opens tabs of its own in the browser's first profile, by its debugging port: so the login has to be that profile's, too.
 * The performance score is simulated (slow 4G, a slow processor) from what the machine measured: where that is busy it is the median of some runs.
 */
async function lighthouse() {
  const { default: rate } = await import(`${given.lighthouse}/lighthouse/core/index.js`);
  const context = await launched(given.profile, ["--remote-debugging-port=0", "--ignore-certificate-errors"]);
  const port = Number(readFileSync(`${given.profile}/DevToolsActivePort`, "utf8").split("\n")[0]);
  const page = context.pages()[0] ?? (await context.newPage());
  await logIn(page);
  const first = async (path) => (await api(page, path)).items[0].id;
  const screens = { overview: "", jobs: "jobs", job: `jobs/${await first("/jobs?operation=Backup")}`, session: `sessions/${await first("/sessions")}`, backups: "backups", new: "new" };
  await page.goto("about:blank"); // its polling would be counted
  const found = {};
  for (const [name, hash] of Object.entries(screens)) {
    const categories = [...CATEGORIES, ...(given.runs ? ["performance"] : [])];
    const results = [];
    for (let i = 0; i < Math.max(1, given.runs ?? 0); i++) {
      const lhr = await rating(rate, name, `${given.url}/ui/#/${hash}`, {
        port, logLevel: "silent", onlyCategories: categories, disableStorageReset: true, disableFullPageScreenshot: true, maxWaitForLoad: PATIENCE,
        ...(!given.runs && { pauseAfterFcpMs: 500, pauseAfterLoadMs: 500, networkQuietThresholdMs: 500, cpuQuietThresholdMs: 0 }), // what is rated then does not depend on time
      });
      check(lhr.finalDisplayedUrl.endsWith(`#/${hash}`), `${name}: it was at ${lhr.finalDisplayedUrl}`);
      results.push(lhr);
    }
    const figure = (audit) => median(results.map((lhr) => lhr.audits[audit]?.numericValue ?? 0));
    found[name] = Object.fromEntries(categories.map((category) => {
      const score = median(results.map((lhr) => lhr.categories[category].score));
      return [category, { score, lost: lost(results.find((lhr) => lhr.categories[category].score === score), category) }];
    }));
    if (given.runs) found[name].performance.figures = Object.fromEntries(FIGURES.map((audit) => [audit, Math.round(figure(audit) * 1000) / 1000]));
  }
  await context.close();
  return found;
}

/** An empty cache, a login, and the overview: bytes as they come over the wire, and from when on it can be used. */
async function firstView(browser) {
  const found = {};
  for (const encoding of ["gzip", "br"]) {
    const context = await browser.newContext({ viewport: { width: 412, height: 823 }, ignoreHTTPSErrors: true });
    const page = await context.newPage();
    await page.addInitScript(() => {
      window.busy = [];
      window.shifted = 0;
      new PerformanceObserver((list) => list.getEntries().forEach((one) => (window.shifted += one.value))).observe({ type: "layout-shift", buffered: true });
      new PerformanceObserver((list) => window.busy.push(...list.getEntries().map((one) => one.startTime + one.duration))).observe({ type: "longtask", buffered: true });
    });
    await logIn(page);
    const session = await context.newCDPSession(page);
    await session.send("Network.enable");
    await session.send("Network.clearBrowserCache");
    await session.send("Network.setExtraHTTPHeaders", { headers: { "Accept-Encoding": encoding } });
    let bytes = 0;
    const kinds = new Map();
    session.on("Network.responseReceived", (event) => kinds.set(event.requestId, event.type));
    session.on("Network.loadingFinished", (event) => {
      if (["Document", "Script", "Stylesheet", "Image", "Other"].includes(kinds.get(event.requestId))) bytes += event.encodedDataLength;
    });
    await page.goto("about:blank");
    await page.goto(`${given.url}/ui/`);
    await heading(page, "Overview");
    await page.locator(".hero").waitFor();
    // drawn, and the main thread is free: what was long before that has ended
    const shown = await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now())))));
    const usable = await page.evaluate((at) => Math.max(at, ...window.busy.filter((end) => end <= at + 500)), shown);
    found[encoding] = { bytes, usable, shifted: await page.evaluate(() => window.shifted), painted: await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null) };
    await context.close();
  }
  return found;
}

await run({ lighthouse, firstView });
