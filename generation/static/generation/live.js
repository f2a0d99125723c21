// Draws the last two minutes as two lines, and each process as a row.

(() => {
  const SPAN_S = 120;
  const MISSED = 4; // looks; a longer pause, e.g. of a hidden tab, leaves a gap in the lines
  const GONE_S = 60; // how long the row of a process that has ended stays
  const lines = [...document.querySelectorAll("[data-line]")];
  const scales = [...document.querySelectorAll("[data-scale]")];
  const most = document.querySelector("[data-most]");
  const summary = document.getElementById("summary");
  const body = document.querySelector("[data-processes]");
  const names = [...document.querySelectorAll(".processes th")].map((cell) => cell.textContent);
  const samples = []; // { at, everyS, requests_in_flight, checked_out }, the oldest first
  const seen = new Map(); // process: { cells, at }

  function round(top) {
    const power = 10 ** Math.floor(Math.log10(top));
    return power * [1, 2, 5, 10].find((step) => step * power >= top);
  }

  function path(name, top, now) {
    let before = null;
    return samples
      .map((sample) => {
        const x = (SPAN_S - (now - sample.at)).toFixed(2);
        const y = (98 - (96 * sample[name]) / top).toFixed(2);
        const pen = before && sample.at - before.at < MISSED * before.everyS ? "L" : "M";
        before = sample;
        return `${pen}${x} ${y}`;
      })
      .join("");
  }

  function range(name) {
    const values = samples.map((sample) => sample[name]);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    return least === most ? `${most}` : `${least} to ${most}`;
  }

  function draw(everyS) {
    const now = performance.now() / 1000;
    while (samples.length && now - samples[0].at > SPAN_S) samples.shift();
    if (!samples.length) return;
    const flight = Math.max(...samples.map((sample) => sample.requests_in_flight));
    const top = round(Math.max(10, flight, ...samples.map((sample) => sample.checked_out)));
    most.textContent = flight.toLocaleString("en");
    for (const line of lines) line.setAttribute("d", path(line.dataset.line, top, now));
    for (const scale of scales) scale.textContent = (top * scale.dataset.scale).toLocaleString("en");
    summary.textContent =
      `The last two minutes, from a look every ${everyS === 1 ? "second" : `${everyS} seconds`}: ${range("requests_in_flight")} in flight,` +
      ` ${range("checked_out")} connections checked out.`;
  }

  function describe(each) {
    if (!each.answers) return ["no answer"];
    return [
      each.draining ? "draining" : "serving",
      `${each.requests_in_flight}, at most ${each.peak_requests_in_flight}`,
      each.llm_calls_in_flight,
      `${each.checked_out} of ${each.size}, at most ${each.peak_checked_out}`,
      each.journal_rows_in_memory_only ? `${each.journal_rows}, in memory only: ${each.journal_rows_in_memory_only}` : each.journal_rows,
      each.open_circuits.join(", ") || "none",
    ];
  }

  function row(process) {
    const element = document.createElement("tr");
    const cells = names.map((name) => {
      const cell = document.createElement("td");
      cell.dataset.name = name;
      element.append(cell);
      return cell;
    });
    cells[0].textContent = process;
    body.append(element);
    return { element, cells };
  }

  function list(processes) {
    const now = performance.now() / 1000;
    for (const each of processes) {
      if (!seen.has(each.process)) seen.set(each.process, row(each.process));
      const shown = seen.get(each.process);
      shown.at = now;
      const said = describe(each);
      shown.element.dataset.state = said[0];
      shown.cells.slice(1).forEach((cell, n) => (cell.textContent = said[n] ?? "–"));
    }
    for (const [process, shown] of seen) {
      if (shown.at === now) continue;
      shown.element.dataset.state = shown.cells[1].textContent = "ended";
      for (const cell of shown.cells.slice(2)) cell.textContent = "–";
      if (now - shown.at > GONE_S) {
        shown.element.remove();
        seen.delete(process);
      }
    }
  }

  // What the service has seen; it knows nothing of before its start, and the tab might.
  document.addEventListener("pool-history", ({ detail }) => {
    const count = detail.requests_in_flight.length;
    const begun = performance.now() / 1000 - count;
    const earlier = samples.filter((sample) => sample.at <= begun);
    samples.splice(0, samples.length, ...earlier);
    for (let n = 0; n < count; n += 1) {
      samples.push({ at: begun + n, everyS: 1, requests_in_flight: detail.requests_in_flight[n], checked_out: detail.checked_out[n] });
    }
  });
  document.addEventListener("pool", ({ detail }) => {
    const { figures, everyS } = detail;
    const { requests_in_flight, checked_out } = figures.total;
    samples.push({ at: performance.now() / 1000, everyS, requests_in_flight, checked_out });
    document.title = `${requests_in_flight} in flight · ${checked_out} checked out – Staccato`;
    draw(everyS);
    // The process that answers comes first, and that is now one and now another.
    list([...figures.processes].sort((one, other) => one.process - other.process));
  });
  document.addEventListener("pool-lost", () => {
    document.title = "No answer – Staccato";
  });
})();
