// The widget manager typesets labels through MathJax 2's queue, which MathJax 3 no longer has. Without this, every
// labelled widget on a page with formulas raises an error.
document.addEventListener("DOMContentLoaded", () => {
  if (window.MathJax && MathJax.startup && !MathJax.Hub) {
    MathJax.Hub = {
      Queue: ([, , element]) => MathJax.startup.promise.then(() => MathJax.typesetPromise([element])),
    };
  }
});
