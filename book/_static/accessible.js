// What the theme, the citations and the widgets leave out for readers who do not see the page.
const mend = () => {
  // A slider's handle has no name of its own; its label stands beside it.
  for (const slider of document.querySelectorAll(".rwkv-live .widget-hslider, .rwkv-live .jupyter-widget-hslider")) {
    const handle = slider.querySelector(".noUi-handle");
    const label = slider.querySelector(".widget-label");
    if (handle && label && !handle.hasAttribute("aria-label")) handle.setAttribute("aria-label", label.textContent);
    const text = slider.querySelector(".widget-readout")?.textContent;
    if (handle && text && handle.getAttribute("aria-valuetext") !== text) handle.setAttribute("aria-valuetext", text);
  }
};
document.addEventListener("DOMContentLoaded", () => {
  // doc-biblioentry is deprecated, and a list of other elements than items is none.
  for (const list of document.querySelectorAll(".citation-list[role]")) list.removeAttribute("role");
  for (const entry of document.querySelectorAll("[role=doc-biblioentry]")) entry.removeAttribute("role");
  mend();
  if (document.querySelector('script[type="application/vnd.jupyter.widget-view+json"]')) {
    new MutationObserver(mend).observe(document.body, { childList: true, characterData: true, subtree: true });
  }
});
