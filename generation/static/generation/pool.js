// Asks for the pool's figures while the tab is visible: once a second, or less often if the answer
// says so, since many watch. Fills in what names a figure by data-figure, and passes each answer on
// as the event "pool".
// A failure shows in [data-lost], and asking goes on. If [data-pool] also names the address of a
// history, that is asked for when looking begins, and passed on as "pool-history".

(() => {
  const root = document.querySelector("[data-pool]");
  const lost = document.querySelector("[data-lost]");
  const PATIENCE_MS = 5000;
  let timer = 0;
  let everyS = 1;
  let asking = null;
  let lacksHistory = false;
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

  // Returns null, and says so, for a visitor who is logged out.
  async function get(address, signal, mayRenew = true) {
    const headers = { "Cache-Control": "max-age=1" };
    if (ticket) headers["Staccato-Ticket"] = ticket;
    const answer = await fetch(address, { headers, signal, cache: "no-store" });
    if ((answer.status === 401 || answer.status === 403) && root.dataset.ticket) {
      if (mayRenew && (await renew(signal))) return get(address, signal, false);
      const link = document.createElement("a");
      link.href = location.href;
      link.textContent = "Log in again";
      say("You are logged out, so this page stands still.", link);
      return null;
    }
    return answer;
  }

  // Returns whether to go on.
  async function ask(signal) {
    if (lacksHistory) {
      const answer = await get(root.dataset.history, signal);
      if (!answer) return false;
      if (answer.ok) document.dispatchEvent(new CustomEvent("pool-history", { detail: await answer.json() }));
      lacksHistory = false;
    }
    const answer = await get(root.dataset.pool, signal);
    if (!answer) return false;
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
      goesOn = await ask(signal);
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
    lacksHistory = "history" in root.dataset;
    if (!document.hidden) tick();
  }

  document.addEventListener("visibilitychange", start);
  document.addEventListener("DOMContentLoaded", start); // when what listens has been loaded, too
})();
