// Asks for the pool's figures while the tab is visible: once a second, or less often if the answer
// says so, since many watch. Fills in what names a figure by data-figure, and passes each answer on
// as the event "pool".
// A failure shows in [data-lost], and asking goes on.

(() => {
  const root = document.querySelector("[data-pool]");
  const lost = document.querySelector("[data-lost]");
  const PATIENCE_MS = 5000;
  let timer = 0;
  let everyS = 1;
  let asking = null;
  let silentSince = null;
  let ticket = root.dataset.ticket;

  const FORMATS = {
    ms: (ms) => {
      if (ms === 0) return "–"; // none has been measured
      if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
      return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
    },
    names: (names) => names.join(", ") || "none",
    count: (count) => count.toLocaleString("en"),
  };

  function show(total) {
    for (const place of document.querySelectorAll("[data-figure]")) {
      const value = place.dataset.figure.split(".").reduce((part, name) => part?.[name], total);
      if (value !== undefined) place.textContent = FORMATS[place.dataset.as ?? "count"](value);
    }
  }

  function say(sentence, link) {
    lost.hidden = !sentence;
    if (lost.firstChild?.data === sentence) return; // it is read out when it changes
    lost.replaceChildren(sentence);
    if (link) lost.append(" ", link);
  }

  function fail(why) {
    silentSince ??= new Date();
    const time = silentSince.toLocaleTimeString("en-GB");
    say(`No answer since ${time}: ${why} This page goes on asking.`);
    document.dispatchEvent(new CustomEvent("pool-lost"));
  }

  // The page, loaded again, has a new ticket if its visitor is still logged in.
  async function renew(signal) {
    const page = await fetch(location.href, { signal, cache: "no-store" });
    const found = new DOMParser().parseFromString(await page.text(), "text/html");
    ticket = found.querySelector("[data-pool]")?.dataset.ticket ?? "";
    return ticket !== "";
  }

  async function ask(signal, mayRenew) {
    const headers = { "Cache-Control": "max-age=1" };
    if (ticket) headers["Staccato-Ticket"] = ticket;
    const answer = await fetch(root.dataset.pool, { headers, signal, cache: "no-store" });
    if ((answer.status === 401 || answer.status === 403) && root.dataset.ticket) {
      if (mayRenew && (await renew(signal))) return ask(signal, false);
      const link = document.createElement("a");
      link.href = location.href;
      link.textContent = "Log in again";
      say("You are logged out, so this page stands still.", link);
      return false;
    }
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({}));
      fail(`the service says “${problem.detail ?? answer.status}”.`);
      return true;
    }
    const figures = await answer.json();
    everyS = Number(answer.headers.get("Cache-Control")?.match(/max-age=(\d+)/)?.[1] || 1);
    silentSince = null;
    say("");
    show(figures.total);
    document.dispatchEvent(new CustomEvent("pool", { detail: { figures, everyS } }));
    return true;
  }

  async function tick() {
    const begun = performance.now();
    asking = new AbortController();
    const { signal } = asking;
    const patience = setTimeout(() => asking?.abort("late"), PATIENCE_MS);
    let goesOn = true;
    try {
      goesOn = await ask(signal, true);
    } catch {
      if (signal.reason === "hidden") return;
      fail(signal.aborted ? "it takes longer than five seconds." : "the service can’t be reached.");
    } finally {
      clearTimeout(patience);
    }
    if (goesOn && !document.hidden) timer = setTimeout(tick, Math.max(0, everyS * 1000 - (performance.now() - begun)));
  }

  function start() {
    clearTimeout(timer);
    asking?.abort("hidden");
    if (!document.hidden) tick();
  }

  document.addEventListener("visibilitychange", start);
  document.addEventListener("DOMContentLoaded", start); // when what listens has been loaded, too
})();
