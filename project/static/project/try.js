// Asks the LLM what the form says, and shows the answer while it comes.

(() => {
  const form = document.getElementById("trial");
  const ask = form.querySelector("[type=submit]");
  const stop = form.querySelector("[data-stop]");
  const state = form.querySelector("[data-state]");
  const answer = form.querySelector("[data-answer]");
  let ticket = form.dataset.ticket;
  let running = null;

  // A conversation rather than an input: it takes no prompt template, which a visitor may lack.
  const post = (signal) =>
    fetch(form.action, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Staccato-Ticket": ticket },
      body: JSON.stringify({ messages: [{ role: "user", content: form.prompt.value }], stream: true }),
      signal,
    });

  // The page, loaded again, has a new ticket if its visitor is still logged in.
  async function renew(signal) {
    const page = await fetch(location.href, { signal, cache: "no-store" });
    const found = new DOMParser().parseFromString(await page.text(), "text/html");
    ticket = found.getElementById("trial")?.dataset.ticket ?? "";
    return ticket !== "";
  }

  function say(sentence, link) {
    state.replaceChildren(sentence);
    if (link) state.append(" ", link);
  }

  function linkTo(address, words) {
    const link = document.createElement("a");
    link.href = address;
    link.textContent = words;
    return link;
  }

  // The sentence of a problem document.
  function refusal(problem, wait) {
    const detail = problem.detail ?? problem.title ?? "the service could not answer";
    const sentence = detail[0].toUpperCase() + detail.slice(1);
    return `${sentence}${/[.!?]$/.test(sentence) ? "" : "."}${wait ? ` Try again in ${wait} s.` : ""}`;
  }

  async function* events(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      const blocks = (rest + read.value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split("\n");
        const of = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
        if (of("event")) yield [of("event"), JSON.parse(of("data"))];
      }
    }
  }

  async function run(signal) {
    let response = await post(signal);
    if (response.status === 401 && (await renew(signal))) response = await post(signal);
    if (response.status === 401) return say("You are logged out.", linkTo(location.href, "Load the page again"));
    if (!response.ok) {
      const problem = await response.json().catch(() => ({}));
      return say(refusal(problem, response.headers.get("Retry-After")));
    }
    for await (const [event, data] of events(response.body)) {
      if (event === "delta" && data.text) answer.append(data.text);
      if (event === "error") return say(refusal(data));
      if (event === "done") {
        const tokens = data.tokens === null ? "" : `, ${data.tokens} tokens`;
        const row = linkTo(`${form.dataset.logs}${data.id}/change/`, "See its row");
        return say(`${data.model}, ${(data.latency_ms / 1000).toFixed(1)} s${tokens}.`, row);
      }
    }
    say("The connection was lost before the end. The service ends such a call, and logs it.");
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return;
    running = new AbortController();
    [ask.disabled, stop.disabled, answer.hidden] = [true, false, false];
    answer.textContent = "";
    say("The LLM is asked …");
    try {
      await run(running.signal);
    } catch {
      say(
        running.signal.aborted
          ? "Stopped: the call to the LLM is cancelled, and its row says so."
          : "The service can’t be reached.",
      );
    } finally {
      running = null;
      [ask.disabled, stop.disabled] = [false, true];
    }
  });
  stop.addEventListener("click", () => running?.abort());
  form.prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
})();
