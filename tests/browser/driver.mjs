// Runs Chromium for a test. Arguments: its path, a new folder for its profile, and the one key of a server
// certificate that it is to trust. Each line of stdin is {"page": URL, "scenario": name, "argument": …}; each
// line of stdout is what the page's scenario returned, or {"failed": text}.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [executablePath, profile, ...trusted] = process.argv.slice(2);
const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    `--ignore-certificate-errors-spki-list=${trusted.join(",")}`,
  ],
});
const pages = new Map();

async function opened(url) {
  if (!pages.has(url)) {
    const page = await context.newPage();
    await page.goto(url);
    pages.set(url, page);
  }
  return pages.get(url);
}

async function run({ page, scenario, argument }) {
  const target = (await opened(page)).frames().at(-1); // the page, or the frame inside of it
  return target.evaluate(([name, given]) => window.scenarios[name](given), [scenario, argument]);
}

console.log(JSON.stringify(context.browser()?.version() ?? "started"));
for await (const line of createInterface({ input: process.stdin })) {
  const answer = await run(JSON.parse(line)).catch((error) => ({ failed: String(error) }));
  console.log(JSON.stringify(answer ?? null));
}
await context.close();
