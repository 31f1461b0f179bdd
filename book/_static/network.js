/* A network that runs in the page. Everything comes from the book's own files, when the reader asks for it: scripts that
   hold text, since a page that was opened as a file may load nothing else. No picture leaves this machine. */
(() => {
  "use strict";
  const HOME = new URL("network/", document.currentScript.src).href;
  const known = (self.rwkvNetwork ??= {});

  // What the worker runs: one thread, so that the page stays alive and no server has to send special headers.
  const WORK = `
    let ort, session;
    onmessage = async ({data: {id, runtime, onnx, image, size, controls}}) => {
      try {
        if (runtime) {
          const url = URL.createObjectURL(new Blob([runtime.mjs], {type: "text/javascript"}));
          ort = await import(url);
          Object.assign(ort.env.wasm, {numThreads: 1, wasmBinary: runtime.wasm});
        }
        if (onnx) session = await ort.InferenceSession.create(onnx, {executionProviders: ["wasm"]});
        if (!image) return postMessage({id});
        const feeds = {image: new ort.Tensor("float32", image, [1, 3, size, size])};
        for (const [name, value] of Object.entries(controls)) {
          if (session.inputNames.includes(name)) feeds[name] = new ort.Tensor("float32", [value], []);
        }
        const start = performance.now();
        const {logits} = await session.run(feeds);
        postMessage({id, logits: logits.data, milliseconds: performance.now() - start});
      } catch (error) {
        postMessage({id, error: String(error && error.message || error)});
      }
    };`;

  const load = name => new Promise((done, failed) => {
    const script = document.createElement("script");
    Object.assign(script, {src: HOME + name, onload: done, onerror: () => failed(new Error(`${name} did not load`))});
    document.head.append(script);
  });

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  const picture = uri => new Promise((done, failed) => {
    const image = new Image();
    Object.assign(image, {onload: () => done(image), onerror: () => failed(new Error("this is no picture")), src: uri});
  });

  const megabytes = bytes => `${(bytes / 1e6).toFixed(1)} MB`;

  class Network {
    constructor(root) {
      Object.assign(this, {root, asked: new Map(), count: 0, spot: [64, 64], busy: false, again: false});
      this.start = document.createElement("button");
      this.start.className = "btn btn-primary rwkv-network-start";
      this.status = document.createElement("p");
      this.status.setAttribute("role", "status");
      root.append(this.start, this.status);
      load("pictures.js").then(() => {
        Object.assign(this, known, {name: known.networks[0].name});
        const bytes = known.runtimeBytes + known.networks[0].bytes;
        this.start.textContent = `Run the network in this page (${megabytes(bytes)})`;
        this.start.onclick = () => this.begin().catch(error => this.say(`It cannot run here: ${error.message}.`));
      }).catch(error => this.say(`It cannot run here: ${error.message}.`));
    }

    say(text) { this.status.textContent = text; }

    call(message) {
      return new Promise((done, failed) => {
        this.asked.set(++this.count, {done, failed});
        this.worker.postMessage({id: this.count, ...message});
      });
    }

    async begin() {
      this.start.disabled = true;
      this.say("Loading …");
      await load("runtime.js");
      const runtime = {mjs: await unpacked(known.runtime.mjs), wasm: await unpacked(known.runtime.wasm)};
      delete known.runtime;
      this.worker = new Worker(URL.createObjectURL(new Blob([WORK], {type: "text/javascript"})));
      this.worker.onmessage = ({data}) => {
        const {done, failed} = this.asked.get(data.id);
        this.asked.delete(data.id);
        data.error ? failed(new Error(data.error)) : done(data);
      };
      await this.call({runtime});
      await this.take(this.name);
      this.draw();
      await this.show(this.pictures[0]);
    }

    async take(name) {
      if (!known[name]) { this.say("Loading …"); await load(`${name}.js`); }
      await this.call({onnx: await unpacked(known[name])});
      this.name = name;
    }

    // The page's own elements, in the place of the stored pictures.
    draw() {
      const id = (this.root.id ||= `rwkv-network-${document.querySelectorAll(".rwkv-network").length}`);
      const choice = (what, rows) => `<select data-is="${what}">${rows.join("")}</select>`;
      const slider = (what, label, code, rows) => `
        <label>${label}<input type="range" data-is="${what}" min="0" max="${rows.length - 1}" step="1"
          value="${rows.indexOf(1)}" aria-valuetext="times 1"><output>× 1</output></label><code>${code}</code>`;
      this.root.innerHTML = `
        <div class="rwkv-network-views">
          <figure><canvas data-is="view" width="${this.size}" height="${this.size}" tabindex="0" role="img"></canvas>
            <figcaption data-is="caption"></figcaption></figure>
          <div class="rwkv-network-controls">
            <label>Network ${choice("network", this.networks.map(({name, label, bytes}) =>
              `<option value="${name}">${label} (${megabytes(bytes)})</option>`))}</label>
            <label>Picture ${choice("picture", this.pictures.map(({name}, i) =>
              `<option value="${i}">${name}</option>`))}</label>
            <label>Your own <input type="file" accept="image/*" data-is="file"></label>
            <fieldset><legend>A click, or the arrow keys and Enter</legend>
              <label><input type="radio" name="${id}" value="ask" checked> asks what a pixel depends on</label>
              <label><input type="radio" name="${id}" value="lump"> draws a lump</label></fieldset>
            ${slider("decay", "Decay", "mix.spatial_decay.mul_(x)", this.steps.decay)}
            ${slider("bonus", "Bonus", "mix.spatial_first.mul_(x)", this.steps.bonus)}
            <label><input type="checkbox" data-is="operator" checked> Spatial Mix</label>
            <code>block.att = None</code>
          </div>
        </div>`;
      this.root.append(this.status);
      const at = this.at = {};
      for (const element of this.root.querySelectorAll("[data-is]")) at[element.dataset.is] = element;
      at.network.onchange = () => this.take(at.network.value).then(() => this.run());
      at.picture.onchange = () => this.show(this.pictures[at.picture.value]);
      at.file.onchange = () => at.file.files[0] && this.open(at.file.files[0]);
      for (const what of ["decay", "bonus"]) {
        at[what].oninput = () => {
          const by = this.steps[what][at[what].value];
          at[what].setAttribute("aria-valuetext", `times ${by}`);
          at[what].nextElementSibling.textContent = `× ${by.toLocaleString("en")}`;
          this.run();
        };
      }
      at.operator.onchange = () => this.run();
      this.root.ondragover = event => event.preventDefault();
      this.root.ondrop = event => {
        event.preventDefault();
        if (event.dataTransfer.files[0]) this.open(event.dataTransfer.files[0]);
      };
      at.view.onpointerdown = event => this.point(event);
      at.view.onkeydown = event => this.key(event);
    }

    steps = {decay: [0, 1, 10, 100, 1000, 10000], bonus: [0, 1, 10, 100, 1000, 10000]};

    async open(file) {
      const url = URL.createObjectURL(file);
      try { await this.show({name: file.name, alt: "Your picture.", image: url}); }
      catch (error) { this.say(`${file.name}: ${error.message}.`); }
      finally { URL.revokeObjectURL(url); }
    }

    // A picture is cut to a square around its middle, and brought to the size of training.
    async pixels(uri) {
      const image = await picture(uri), n = this.size;
      const canvas = Object.assign(document.createElement("canvas"), {width: n, height: n});
      const context = canvas.getContext("2d", {willReadFrequently: true});
      const side = Math.min(image.naturalWidth, image.naturalHeight);
      const corner = [(image.naturalWidth - side) / 2, (image.naturalHeight - side) / 2];
      context.imageSmoothingQuality = "high";
      context.drawImage(image, ...corner, side, side, 0, 0, n, n);
      return context.getImageData(0, 0, n, n);
    }

    async show(chosen) {
      this.shown = chosen;
      this.image = await this.pixels(chosen.image);
      this.truth = chosen.mask ? (await this.pixels(chosen.mask)).data.filter((_, i) => i % 4 === 0) : null;
      await this.run();
    }

    // (H, W, 4) bytes to (3, H, W) numbers in [0, 1].
    planes(data) {
      const n = this.size ** 2, planes = new Float32Array(3 * n);
      for (let i = 0; i < n; i++) for (let c = 0; c < 3; c++) planes[c * n + i] = data[4 * i + c] / 255;
      return planes;
    }

    controls() {
      const {decay, bonus, operator} = this.at;
      return {decay: this.steps.decay[decay.value], bonus: this.steps.bonus[bonus.value], operator: +operator.checked};
    }

    async run() {
      this.heat = null;
      if (this.busy) { this.again = true; return; }
      this.busy = true;
      try {
        const image = this.planes(this.image.data);
        const {logits, milliseconds} = await this.call({image, size: this.size, controls: this.controls()});
        Object.assign(this, {logits, milliseconds});
        this.paint();
        this.report();
        this.root.dispatchEvent(new CustomEvent("rwkv-logits", {detail: {logits, milliseconds}}));
      } catch (error) {
        this.say(`It stopped: ${error.message}.`);
      } finally {
        this.busy = false;
        if (this.again) { this.again = false; this.run(); }
      }
    }

    report() {
      const marked = this.logits.reduce((sum, z) => sum + (z > 0), 0), n = this.logits.length;
      let text = `${Math.round(this.milliseconds)} ms. Marked: ${(100 * marked / n).toFixed(1)} % of the picture`;
      if (this.truth) {
        const truth = this.truth.reduce((sum, v) => sum + (v > 127), 0);
        const both = this.logits.reduce((sum, z, i) => sum + (z > 0 && this.truth[i] > 127), 0);
        text += truth + marked ? `; Dice ${(2 * both / (truth + marked)).toFixed(2)}` : "; nothing to find";
      }
      this.say(`${text}.`);
      this.at.caption.textContent = "Orange: the mask." + (this.truth ? " White: the edge of the truth." : "");
      this.at.view.setAttribute("aria-label", `${this.shown.alt} ${text}. Arrow keys move a cross, Enter clicks there.`);
    }

    paint() {
      const n = this.size, context = this.at.view.getContext("2d");
      const out = new ImageData(new Uint8ClampedArray(this.image.data), n, n);
      const blend = (i, colour, share) => {
        for (let c = 0; c < 3; c++) out.data[4 * i + c] += share * (colour[c] - out.data[4 * i + c]);
      };
      for (let i = 0; i < n * n; i++) {
        if (this.heat) blend(i, [0, 114, 178], 0.85 * this.heat[i]);
        else if (this.logits[i] > 0) blend(i, [230, 159, 0], 0.55);
        const edge = this.truth && this.truth[i] > 127 &&
          [-1, 1, -n, n].some(step => !(this.truth[i + step] > 127));
        if (edge) blend(i, [255, 255, 255], 0.9);
      }
      const [row, column] = this.spot;
      if (this.heat || this.at.view === document.activeElement) {
        for (let d = -4; d <= 4; d++) {
          for (const [r, c] of [[row + d, column], [row, column + d]]) {
            if (r >= 0 && c >= 0 && r < n && c < n) blend(r * n + c, [0, 0, 0], 1);
          }
        }
      }
      context.putImageData(out, 0, 0);
    }

    point(event) {
      const box = this.at.view.getBoundingClientRect();
      const place = (offset, length) => Math.min(this.size - 1, Math.max(0, Math.floor(offset / length * this.size)));
      this.spot = [place(event.clientY - box.top, box.height), place(event.clientX - box.left, box.width)];
      this.act();
    }

    key(event) {
      const steps = {ArrowUp: [-4, 0], ArrowDown: [4, 0], ArrowLeft: [0, -4], ArrowRight: [0, 4]};
      if (event.key in steps) {
        this.spot = this.spot.map((x, i) => Math.min(this.size - 1, Math.max(0, x + steps[event.key][i])));
        this.paint();
      } else if (event.key === "Enter") {
        this.act();
      } else {
        return;
      }
      event.preventDefault();
    }

    act() {
      if (this.root.querySelector("input[type=radio]:checked").value === "lump") this.lump();
      else this.ask();
    }

    // A lump in the manner of the training pictures: lit from above, darker at its rim.
    lump() {
      const n = this.size, [row, column] = this.spot, radius = 14, data = new Uint8ClampedArray(this.image.data);
      for (let y = 0; y < n; y++) {
        for (let x = 0; x < n; x++) {
          const d = Math.hypot(y - row, x - column) / radius;
          if (d >= 1.1) continue;
          const height = Math.sqrt(Math.max(0, 1 - d * d)), light = 0.55 + 0.6 * height - 0.25 * (y - row) / radius;
          const share = Math.min(1, (1.1 - d) * 6);
          [196, 92, 84].forEach((tint, c) => {
            const i = 4 * (y * n + x) + c;
            data[i] += share * (Math.min(255, tint * light) - data[i]);
          });
        }
      }
      this.image = new ImageData(data, n, n);
      this.truth = null;
      this.shown = {...this.shown, alt: `${this.shown.alt} With a lump drawn on it.`};
      this.run();
    }

    // What one output depends on: how much its logit changes when a square of the picture is grey.
    async ask() {
      if (this.busy) return;
      this.busy = true;
      const n = this.size, side = 16, [row, column] = this.spot, controls = this.controls();
      const image = this.planes(this.image.data), area = n * n, heat = new Float32Array(area);
      const own = this.logits[row * n + column], changes = [];
      const mean = [0, 1, 2].map(c => image.subarray(c * area, (c + 1) * area).reduce((a, b) => a + b) / area);
      try {
        for (let top = 0; top < n; top += side) {
          for (let left = 0; left < n; left += side) {
            const covered = image.slice();
            for (let c = 0; c < 3; c++) {
              for (let y = top; y < top + side; y++) {
                covered.fill(mean[c], c * area + y * n + left, c * area + y * n + left + side);
              }
            }
            const {logits} = await this.call({image: covered, size: n, controls});
            changes.push([top, left, Math.abs(logits[row * n + column] - own)]);
          }
          this.say(`Covering one square after the other: ${changes.length} of ${(n / side) ** 2}.`);
        }
        const largest = Math.max(...changes.map(change => change[2])) || 1;
        for (const [top, left, change] of changes) {
          for (let y = top; y < top + side; y++) heat.fill(change / largest, y * n + left, y * n + left + side);
        }
        this.heat = heat;
        this.paint();
        const near = changes.filter(([top, left]) =>
          Math.hypot(top + side / 2 - row, left + side / 2 - column) < 2 * side).reduce((a, [, , b]) => a + b, 0);
        const all = changes.reduce((a, [, , b]) => a + b, 0) || 1;
        const far = (100 * (1 - near / all)).toFixed(0);
        this.say(`The logit here is ${own.toFixed(2)}; it changes by ${largest.toFixed(2)} at most when a square is ` +
          `covered. ${far} % of all change comes from squares further away than ${2 * side} pixels.`);
        this.at.caption.textContent = "Blue: what the pixel under the cross depends on.";
        this.root.dispatchEvent(new CustomEvent("rwkv-asked", {detail: {heat}}));
      } catch (error) {
        this.say(`It stopped: ${error.message}.`);
      } finally {
        this.busy = false;
      }
    }
  }

  addEventListener("DOMContentLoaded", () => {
    for (const root of document.querySelectorAll(".rwkv-network")) new Network(root);
  });
})();
