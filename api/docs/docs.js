// The contract as this daemon serves it, here without a credential. Nothing is asked of any other host, and tokens that are typed in are kept nowhere.
window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: "openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    docExpansion: "none",
    validatorUrl: null,
    persistAuthorization: false,
  });
});
