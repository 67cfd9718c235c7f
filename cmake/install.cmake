# What an installation has beside the programs (targets.cmake): units, users, directories, completions, an example of the configuration, documents.
set(QUIESCED_UNIT_DIR lib/systemd/system CACHE STRING "Where systemd looks for units; relative to the prefix, or absolute")
set(QUIESCED_SYSUSERS_DIR lib/sysusers.d CACHE STRING "The same for sysusers.d(5)")
set(QUIESCED_TMPFILES_DIR lib/tmpfiles.d CACHE STRING "The same for tmpfiles.d(5)")

file(GLOB UNITS CONFIGURE_DEPENDS packaging/systemd/*.in)
foreach(unit IN LISTS UNITS)
  get_filename_component(name ${unit} NAME_WLE)
  configure_file(${unit} ${CMAKE_BINARY_DIR}/systemd/${name} @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/systemd/${name} DESTINATION ${QUIESCED_UNIT_DIR})
endforeach()
install(FILES packaging/sysusers.conf DESTINATION ${QUIESCED_SYSUSERS_DIR} RENAME quiesced.conf)
install(FILES packaging/tmpfiles.conf DESTINATION ${QUIESCED_TMPFILES_DIR} RENAME quiesced.conf)
install(DIRECTORY packaging/front-doors DESTINATION lib/quiesced USE_SOURCE_PERMISSIONS) # docs/front-doors.md names them there
install(FILES packaging/quiesced.yaml DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
install(FILES examples/directory_writer.c DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md")
install(FILES ${MANUAL_DIR}/commands.md DESTINATION ${CMAKE_INSTALL_DOCDIR}) # over the page of the tree, which says where this one is
install(FILES openapi.yaml DESTINATION ${CMAKE_INSTALL_DOCDIR})

# quiescectl itself knows its commands.
set(completions "")
foreach(shell bash zsh fish)
  set(file ${CMAKE_BINARY_DIR}/completions/quiescectl.${shell})
  add_custom_command(OUTPUT ${file} COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/completions
                     COMMAND quiescectl completion ${shell} > ${file} DEPENDS quiescectl VERBATIM)
  list(APPEND completions ${file})
endforeach()
add_custom_target(completions ALL DEPENDS ${completions})
add_dependencies(product completions)
install(FILES ${CMAKE_BINARY_DIR}/completions/quiescectl.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME quiescectl)
install(FILES ${CMAKE_BINARY_DIR}/completions/quiescectl.zsh DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions RENAME _quiescectl)
install(FILES ${CMAKE_BINARY_DIR}/completions/quiescectl.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
