# The manual: docs/ as pages that the daemon serves (/docs/manual/) and as man pages; completion of shells. quiescectl tells its own commands, so that
# neither can lag behind them.
set(MANUAL_DIR ${GENERATED_DIR}/manual)
find_program(LOWDOWN lowdown REQUIRED)
file(GLOB_RECURSE MANUAL_SOURCES CONFIGURE_DEPENDS docs/*.md docs/manual.* scripts/manual/*.py)
add_custom_command(
  OUTPUT ${MANUAL_DIR}/made ${MANUAL_DIR}/quiescectl.bash ${MANUAL_DIR}/_quiescectl ${MANUAL_DIR}/quiescectl.fish
  COMMAND ${CMAKE_COMMAND} -E make_directory ${MANUAL_DIR}
  COMMAND ${CMAKE_COMMAND} -E env HOME=/nonexistent $<TARGET_FILE:quiescectl> --help --json > ${MANUAL_DIR}/commands.json
  COMMAND ${CMAKE_COMMAND} -E env HOME=/nonexistent $<TARGET_FILE:quiescectl> completion bash > ${MANUAL_DIR}/quiescectl.bash
  COMMAND ${CMAKE_COMMAND} -E env HOME=/nonexistent $<TARGET_FILE:quiescectl> completion zsh > ${MANUAL_DIR}/_quiescectl
  COMMAND ${CMAKE_COMMAND} -E env HOME=/nonexistent $<TARGET_FILE:quiescectl> completion fish > ${MANUAL_DIR}/quiescectl.fish
  COMMAND ${GENERATE_PYTHON} -B ${CMAKE_SOURCE_DIR}/scripts/manual/build.py --commands ${MANUAL_DIR}/commands.json --out ${MANUAL_DIR}
  COMMAND ${CMAKE_COMMAND} -E touch ${MANUAL_DIR}/made
  DEPENDS quiescectl ${MANUAL_SOURCES} daemon/base/hresult.def
  COMMENT "The manual and the man pages")
add_custom_target(manual DEPENDS ${MANUAL_DIR}/made)
include(GNUInstallDirs)
install(DIRECTORY ${MANUAL_DIR}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 FILES_MATCHING PATTERN *.1)
install(DIRECTORY ${MANUAL_DIR}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man5 FILES_MATCHING PATTERN *.5)
install(DIRECTORY ${MANUAL_DIR}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man7 FILES_MATCHING PATTERN *.7)
install(DIRECTORY ${MANUAL_DIR}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man8 FILES_MATCHING PATTERN *.8)
install(DIRECTORY examples/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
